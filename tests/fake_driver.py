"""A CUDA driver that answers as real ones do, of GPUs that are nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FakeDriver:
    """Stands in for libcuda.so.1: the calls that are made of it, with plain arguments."""

    def __init__(
        self,
        version: int,
        gpus: list[tuple[str, int]],
        init: int = 0,
        attributes: Mapping[int, int] | None = None,
        memory_bytes: int = 0,
    ) -> None:
        self._version, self._gpus, self._init = version, gpus, init
        self._attributes, self._memory_bytes = attributes or {}, memory_bytes

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self._version
        return 0

    def cuInit(self, _flags: int) -> int:
        return self._init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, _length: int, device: Any) -> int:
        name.value = self._gpus[device.value][0].encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        capability = self._gpus[device.value][1]
        told = {75: capability // 10, 76: capability % 10, **self._attributes}
        value._obj.value = told.get(attribute, 0)
        return 0 if attribute in told else 1

    def cuDeviceTotalMem_v2(self, size: Any, _device: Any) -> int:
        size._obj.value = self._memory_bytes
        return 0 if self._memory_bytes else 1
