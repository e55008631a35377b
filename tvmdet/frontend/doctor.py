"""The doctor: how far a model comes on the way to a compiled detector, without failing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from tvmdet.diagnosis import Diagnosis, NodeVerdict
from tvmdet.errors import InputError, ModelError, TvmdetError
from tvmdet.frontend.advice import advised
from tvmdet.frontend.bind_inputs import bind_inputs
from tvmdet.frontend.converters import OWN_CONVERTERS, converter_map
from tvmdet.frontend.cost import count_flops, count_parameters
from tvmdet.frontend.import_onnx import choose_size, raw_recognition, size_beside
from tvmdet.frontend.importer import trace_operators
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import LoadedModel, load_onnx
from tvmdet.frontend.model import Model
from tvmdet.frontend.network import Network
from tvmdet.frontend.onnx_tools import first_line, graph_inputs, input_summary, value_summary
from tvmdet.frontend.operators import INTEGER_OPERATORS, Block, find_blocks, find_foreign
from tvmdet.frontend.prove import TOLERANCE, Proof
from tvmdet.frontend.recognise import recognise
from tvmdet.frontend.sidecar import Sidecar
from tvmdet.frontend.specialise import static_values
from tvmdet.frontend.summary import summarise
from tvmdet.frontend.user_spec import read_given
from tvmdet.heads import Recognition
from tvmdet.spec import DetectorSpec

__all__ = ["diagnose"]

# What rewriting turns into other nodes, or settles.
_MAY_GO = frozenset(
    {"Compress", "If", "Loop", "NonMaxSuppression", "NonZero"}
    | {"Resize", "Scan", "TopK", "Unique", "Upsample"}
)
# How the rewriting of sizes begins an error about a node.
_STOPPED = re.compile(r"node '(.*?)' \((\w+)\): ([^;]*); (.*)")
_PROBED_BATCH = 2


def diagnose(
    path: str | Path,
    *,
    spec: str | Path | Mapping[str, Any] | DetectorSpec | None = None,
    size_hw: tuple[int, int] | None = None,
    limits: Limits | None = None,
    dry_run: Callable[[Model], object] | None = None,
    on_static: Callable[[onnx.ModelProto, int], object] | None = None,
) -> Diagnosis:
    """Says what of a model imports, what is rewritten, and what blocks.

    Every step is tried; one that fails becomes a problem of the diagnosis.

    Args:
        path: The ONNX file.
        spec: What the user knows better, as :func:`tvmdet.import_onnx` takes it.
        size_hw: Height and width in pixels for an export that leaves them open.
        limits: Bounds on what the file may ask for.
        dry_run: Tried on a model that imports, such as the passes after the import; what it
            raises is a problem too. A network that no family claims is given without a head.
        on_static: Called with the rewritten network that is compiled from, and its opset, when
            there is one.

    Returns:
        The diagnosis, also for a file that cannot be loaded.

    Raises:
        InputError: The spec cannot be read.
    """
    limits = limits or Limits()
    beside = read_given(Path(path), spec)
    try:
        outputs = beside.given.get("outputs", ())
        loaded = load_onnx(path, limits, outputs=outputs, allow_foreign=True)
    except ModelError as error:
        return Diagnosis(path=str(path), problems=(str(error),))
    size_hw = size_hw or size_beside(loaded, beside)
    examination = _Examination(loaded, beside, size_hw, limits)
    examination.run(dry_run, on_static)
    return Diagnosis(path=str(path), **examination.found)


class _Examination:
    """The steps of one diagnosis; what they find collects in ``found``."""

    def __init__(
        self,
        loaded: LoadedModel,
        beside: Sidecar,
        size_hw: tuple[int, int] | None,
        limits: Limits,
    ) -> None:
        self._loaded = loaded
        self._beside = beside
        self._given = beside.given
        self._size_hw = size_hw
        self._limits = limits
        self._problems: list[str] = []
        self._constants: Mapping[str, Any] = {}
        self._bound: tuple[str, ...] = ()
        self._channels_last = False
        graph = loaded.exported.graph
        counts = Counter(node.op_type for node in graph.node)
        producer = f"{loaded.proto.producer_name} {loaded.proto.producer_version}"
        self.found: dict[str, Any] = {
            "producer": producer.strip(),
            "ir_version": loaded.ir_version,
            "opset": loaded.exported_opset or loaded.opset,
            "sha256": loaded.sha256,
            "inputs": {
                value.name: str(input_summary(value) or "no tensor of known rank")
                for value in graph_inputs(graph)
            },
            "operators": dict(sorted(counts.items())),
        }

    def run(
        self,
        dry_run: Callable[[Model], object] | None,
        on_static: Callable[[onnx.ModelProto, int], object] | None,
    ) -> None:
        """Runs every step that can still run."""
        foreign = find_foreign(self._loaded.proto.graph)
        static, network = None, None
        if not foreign:
            network, static = self._specialise()
        if static is not None and on_static is not None:
            on_static(static, self._loaded.opset)
        blocks = foreign or self._blocks(network, static)
        blocks = [advised(block, self._loaded.proto.producer_name) for block in blocks]
        self._problems.extend(str(block) for block in blocks)
        proofs = network.proofs if network is not None else ()
        self.found["nodes"] = _verdicts(self._loaded.exported, static, blocks, proofs)
        if static is not None and network is not None:
            self._describe(static)
            found = self._recognise(static)
            self._try_batch(network, static)
            if dry_run is not None and found is not None and not blocks:
                self._try(dry_run, self._model(network, static, found), static)
            self.found.update(proofs=network.proofs, notes=network.notes)
        self.found["problems"] = tuple(dict.fromkeys(self._problems))

    def _specialise(self) -> tuple[Network | None, onnx.ModelProto | None]:
        loaded = self._loaded
        try:
            if not self._raw:
                self._size_hw = choose_size(loaded, self._given, self._size_hw, raw=False)
                assert self._size_hw is not None  # choose_size raises for images without a size
                bound = bind_inputs(loaded, self._size_hw, self._given)
                loaded, self._constants = bound.loaded, bound.constants
                self._bound, self._channels_last = bound.reasons, bound.channels_last
        except (ModelError, InputError) as error:
            self._problems.append(str(error))
        try:
            if loaded is self._loaded:
                self._size_hw = choose_size(loaded, self._given, self._size_hw, raw=True)
            network = Network(loaded, self._size_hw, self._limits)
            return network, network.at(network.fixed_batch or 1)
        except (ModelError, InputError) as error:
            self._problems.append(str(error))
            return None, None

    def _blocks(self, network: Network | None, static: onnx.ModelProto | None) -> list[Block]:
        """Returns what blocks, by looking at the nodes and then by importing them."""
        converters = converter_map()
        if network is None or static is None:
            blocks = find_blocks(self._loaded.proto.graph, converters, but=_MAY_GO)
            return [*blocks, *self._take_stopped()]
        blocks = find_blocks(static.graph, converters)
        if blocks:
            return blocks
        try:
            network.relax_at(network.fixed_batch or 1)
        except ModelError as error:
            named = re.match(r"node '(.*?)' \((\w+)\) ([^;]*); (.*)", str(error))
            if named is None:
                self._problems.append(str(error))
                return []
            node, operator, reason, fix = named.groups()
            return [Block(node=node, operator=operator, reason=reason, fix=fix)]
        return []

    def _take_stopped(self) -> list[Block]:
        """Returns the problems that name the node that stopped the rewriting, as blocks."""
        found = [(problem, _STOPPED.fullmatch(problem)) for problem in self._problems]
        self._problems = [problem for problem, named in found if named is None]
        return [
            Block(node=named[1], operator=named[2], reason=named[3], fix=named[4])
            for _, named in found
            if named is not None
        ]

    def _describe(self, static: onnx.ModelProto) -> None:
        shapes = static_values(static)
        batch = next(iter(shapes[v.name] for v in graph_inputs(static.graph)), (1,))[:1] or (1,)
        self.found.update(
            static=True,
            size_hw=self._size_hw,
            outputs={v.name: str(value_summary(v)) for v in static.graph.output},
            parameters=count_parameters(static),
            gflops=round(count_flops(static, shapes) / batch[0] / 1e9, 4),
        )

    def _recognise(self, static: onnx.ModelProto) -> Recognition | None:
        """Returns the recognition, that of a raw network when no family claims it."""
        summary = replace(
            summarise(static), constants=self._constants, channels_last=self._channels_last
        )
        summary = replace(summary, metadata={**self._beside.hints, **summary.metadata})
        if self._size_hw is not None and not self._raw:
            try:
                given, source = self._spec_at_size(), self._beside.source
                found = recognise(summary, self._size_hw, given, source)
            except TvmdetError as error:
                self._problems.append(str(error))
            else:
                reasons = (*found.reasons, *self._bound, *self._beside.reasons)
                self.found.update(family=found.family, recognition=reasons)
                return found
        try:
            found = raw_recognition(summary, self._given if self._raw else {})
        except ModelError as error:
            self._problems.append(str(error))
            return None
        if self._raw:
            self.found.update(family=found.family, recognition=found.reasons)
        return found

    @property
    def _raw(self) -> bool:
        return bool(self._given.get("family") == "raw")

    def _spec_at_size(self) -> dict[str, Any]:
        """Returns the user's spec with the size that was chosen."""
        table = dict(self._given.get("input", {}))
        if "size_hw" in table:
            table["size_hw"] = self._size_hw
        return {**self._given, "input": table}

    def _model(self, network: Network, static: onnx.ModelProto, found: Recognition) -> Model:
        return Model(
            name=self._loaded.name,
            sha256=self._loaded.sha256,
            spec=found.spec,
            recognition=found.reasons,
            input_names=tuple(value.name for value in graph_inputs(static.graph)),
            output_names=tuple(value.name for value in static.graph.output),
            network=network,
        )

    def _try(
        self, dry_run: Callable[[Model], object], model: Model, static: onnx.ModelProto
    ) -> None:
        try:
            dry_run(model)
        except TvmdetError as error:
            message = str(error)
        except Exception as error:  # TVM raises anything
            message = f"the network imports, but cannot be lowered: {first_line(error)}"
        else:
            return
        named = sorted(set(re.findall(r"\brelax\.[\w.]*\w", message)))
        if named:
            origins = trace_operators(static, self._loaded.opset)
            lines = [
                f"{name} from {', '.join(origins[name][:5])}" for name in named if name in origins
            ]
            message = "; ".join([message, *lines])
        self._problems.append(message)

    def _try_batch(self, network: Network, static: onnx.ModelProto) -> None:
        fixed = network.fixed_batch
        how = "the batch axis is open" if fixed is None else f"the export fixes batch {fixed}"
        batch = _PROBED_BATCH if fixed != _PROBED_BATCH else _PROBED_BATCH + 1
        try:
            network.at(batch)
        except ModelError as error:
            # Batch 1 still compiles: no problem of the model, but good to know.
            self.found.update(batchable=False, batch=f"{how}; {error}")
            return
        rewrite = "" if fixed is None else " after rewriting it"
        largest = network.proofs[-1].largest if network.proofs else TOLERANCE
        self.found.update(
            batchable=True,
            batch=f"{how}; batch {batch} gives what single images give{rewrite} (measured in ONNX "
            f"Runtime on random and picture-like images, relative difference {largest:.1e})",
        )


def _verdicts(
    original: onnx.ModelProto,
    static: onnx.ModelProto | None,
    blocks: Sequence[Block],
    proofs: Sequence[Proof],
) -> tuple[NodeVerdict, ...]:
    """Returns the verdict on every node of the file, blocks inside subgraphs added."""
    blocking = {block.node: block for block in blocks}
    left = None if static is None else {node.name: node.op_type for node in static.graph.node}
    difference = max((proof.largest for proof in proofs), default=None)
    verdicts = []
    for node in original.graph.node:
        block = blocking.pop(node.name, None)
        if block is not None:
            verdicts.append(_blocked(block))
        else:
            verdicts.append(_passed(node, left, difference))
    return (*verdicts, *(_blocked(block) for block in blocking.values()))


def _blocked(block: Block) -> NodeVerdict:
    return NodeVerdict(
        node=block.node,
        operator=block.operator,
        verdict="blocks",
        detail=f"{block.reason}; {block.fix}",
    )


def _passed(
    node: onnx.NodeProto, left: dict[str, str] | None, difference: float | None
) -> NodeVerdict:
    name, operator = node.name, node.op_type
    if operator in INTEGER_OPERATORS and left is not None and left.get(name) != operator:
        detail = "taken as float32: weights exactly, and rounding left out"
        return NodeVerdict(node=name, operator=operator, verdict="rewritten", detail=detail)
    if left is not None and left.get(name) != operator:
        return NodeVerdict(
            node=name,
            operator=operator,
            verdict="rewritten",
            detail="folded or fused with others before the import",
            difference=difference,
        )
    if operator in OWN_CONVERTERS:
        detail = f"by tvmdet's converter for {operator}"
        return NodeVerdict(node=name, operator=operator, verdict="rewritten", detail=detail)
    return NodeVerdict(node=name, operator=operator, verdict="imports")
