// Found in place of NVIDIA's header of the same name.
#pragma once
#include <cuda.h>
