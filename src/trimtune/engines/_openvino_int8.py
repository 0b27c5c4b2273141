"""int8 of classifiers for OpenVINO: NNCF's post-training quantization for transformers, with ranges read off training rows.

Rows enter one by one, so nothing is padded. `int8` takes NNCF's own ranges (of each row the extremes, their mean over the rows).
`int8_static` takes those of its settings, as far as NNCF has them:

    minmax      the extremes over all rows
    percentile  of each row the quantiles that leave 100 − p percent outside, half of it on each side; their mean over the rows
    mse         NNCF's histogram, whose range has the smallest squared error
    entropy     NNCF has none: refused

Of each row NNCF keeps the mean of every channel until all are read, to correct biases: 0.17 MB a row for MiniLM. A sum tells
the same, so its means are taken as they come, and memory doesn't grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.tasks import text_classification
from trimtune.trim import _calibrated


def quantized(graph: Any, source: Path, texts: Sequence[str], max_length: int, settings: _calibrated.Config | None = None) -> Any:
    """The openvino.Model in int8. OpenVINO must have been imported by `openvino_ir`, which keeps its telemetry off.

    Args:
        texts: the rows that are looked at, all of them.
        settings: of int8_static; None takes NNCF's own.

    Raises:
        TrimtuneError: no rows, or a calibration that NNCF doesn't have.
    """
    import nncf

    if not texts:
        raise TrimtuneError("openvino_ir: int8 was asked for without training rows.",
                            "The activations' ranges are read off them.",
                            "Give the rows, or use int8 on torch_eager or onnx_runtime, which need none.")
    tokenizer = text_classification.load_tokenizer(source)
    rows = nncf.Dataset(list(texts), lambda text: text_classification.encode(tokenizer, [text], max_length))
    advanced = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=_estimator(settings)) if settings else None
    with _running_means():
        return nncf.quantize(graph, rows, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(texts),
                             advanced_parameters=advanced)


def static(graph: Any, source: Path, texts: Sequence[str], max_length: int) -> tuple[Any, dict[str, Any]]:
    """The openvino.Model in int8 by the settings that lie in the model folder `source`, and facts.

    Raises:
        TrimtuneError: no settings, no rows, or a calibration that NNCF doesn't have.
    """
    settings = _calibrated.read(source)
    rows = _calibrated.chosen(texts, settings)
    return (quantized(graph, source, rows, max_length, settings),
            {"calibration": settings.calibration, "calibration_rows": len(rows)})


def _estimator(settings: _calibrated.Config) -> Any:
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    if settings.calibration == "entropy":
        raise TrimtuneError("openvino_ir: int8_static with `calibration: entropy` was asked for.",
                            "NNCF has no such calibration; it has minmax, percentile and mse.",
                            "Choose one of these, or run entropy on onnx_runtime.")
    if settings.calibration == "percentile":
        quantiles = StatisticsCollectorParameters(StatisticsType.QUANTILE, AggregatorType.MEAN,
                                                  quantile_outlier_prob=(100 - settings.percentile) / 200)
        return RangeEstimatorParameters(quantiles, quantiles)
    return {"minmax": RangeEstimatorParametersSet.MINMAX, "mse": RangeEstimatorParametersSet.HISTOGRAM}[settings.calibration]


@contextmanager
def _running_means() -> Iterator[None]:
    """NNCF's means over rows as sums in float64. Means over more than the rows, if it ever asks for some, stay its own."""
    from nncf.common.tensor_statistics.collectors import MeanAggregator
    from nncf.tensor import TensorDataType

    add, mean = MeanAggregator._register_reduced_input_impl, MeanAggregator._aggregate_impl

    def added(self: Any, values: Any) -> None:
        if self._aggregation_axes == (0,):
            exact = values.astype(TensorDataType.float64)
            self._container.append(self._container.pop() + exact if self._container else exact)
        else:
            add(self, values)

    def meant(self: Any) -> Any:
        if self._aggregation_axes == (0,):
            return (self._container[0] / self._collected_samples).astype(TensorDataType.float32)
        return mean(self)

    MeanAggregator._register_reduced_input_impl, MeanAggregator._aggregate_impl = added, meant
    try:
        yield
    finally:
        MeanAggregator._register_reduced_input_impl, MeanAggregator._aggregate_impl = add, mean
