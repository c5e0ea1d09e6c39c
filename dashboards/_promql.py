"""Metric names as Prometheus stores them, and the PromQL expressions the dashboard is made of.

Every metric and label comes from `otel_ml.semconv`; nothing here spells one out.
"""

from __future__ import annotations

import re

from otel_ml import semconv
from otel_ml.semconv import Metric

_UNITS = {"": "", "s": "_seconds", "By": "_bytes"}


def prometheus_name(metric: Metric) -> str:
    """Name of `metric` in Prometheus; a histogram's samples add `_bucket`, `_sum` or `_count` to it.

    The rules of opentelemetry-exporter-prometheus, which the collector's own scrape follows too: characters
    outside [a-zA-Z0-9:] become underscores, the unit is spelled out as a suffix, units in braces are dropped,
    counters end in `_total`.
    """
    name = re.sub("[^a-zA-Z0-9:]+", "_", metric.name)
    unit = _UNITS[re.sub("{.*}", "", metric.unit)]
    if not name.endswith(unit):
        name += unit
    return f"{name}_total" if metric.kind == "counter" else name


def label(attribute: str) -> str:
    """Name of an attribute as a Prometheus label."""
    return re.sub("[^a-zA-Z0-9]+", "_", attribute)


MODEL, VERSION, FEATURE = label(semconv.MODEL_NAME), label(semconv.MODEL_VERSION), label(semconv.FEATURE_NAME)
TARGET, STATE = label(semconv.DRIFT_TARGET), label(semconv.FEATURE_STATE)
STATISTIC, LEVEL = label(semconv.DRIFT_STATISTIC), label(semconv.DRIFT_LEVEL)
SERVICE = label(semconv.MONITORED_SERVICE_NAME)
ERROR_TYPE = label(semconv.ERROR_TYPE)
VARIANT, ROLE = label(semconv.VARIANT_NAME), label(semconv.VARIANT_ROLE)

# --- selectors and expressions ------------------------------------------------------------------------------

# What a shadow was asked is never part of what is live: every selector names a role, of which live may be absent.
OF_VARIANT = f'{VARIANT}=~"$variant", {ROLE}=~"$role"'
ALL_ROWS = f'{label(semconv.DRIFT_SEGMENT)}=""'
"""Not one of the segments, which are judged beside the whole."""
ONE_MODEL = f'{MODEL}="$model", {VERSION}="$version", {OF_VARIANT}'
# The SDK's series carry the service as `job` (OTLP ingestion writes namespace/name there).
IN_SERVICE = 'job=~"(.*/)?$service"'
OF_SERVICE = f'{SERVICE}=~"$service"'
CHOSEN = f'{FEATURE}=~"$feature"'
EACH_TARGET = f"{TARGET}, {FEATURE}"


def sdk(metric: Metric, *matchers: str, suffix: str = "", version: bool = True) -> str:
    """Selector of a series that the instrumented service exposes."""
    model = ONE_MODEL if version else f'{MODEL}="$model", {OF_VARIANT}'
    return f"{prometheus_name(metric)}{suffix}{{{', '.join((IN_SERVICE, model, *matchers))}}}"


def drift(metric: Metric, *matchers: str) -> str:
    """Selector of a series that the collector exposes for the model as a whole."""
    return f"{prometheus_name(metric)}{{{', '.join((OF_SERVICE, ONE_MODEL, ALL_ROWS, *matchers))}}}"


def by_feature(metric: Metric, *matchers: str) -> str:
    """Expression with one series for each target; replicas that say the same are folded."""
    return f"max by ({EACH_TARGET}) ({drift(metric, CHOSEN, *matchers)})"


def rate(selector: str) -> str:
    """Rate of a counter per second, over an interval that Grafana fits to the scrape interval."""
    return f"rate({selector}[$__rate_interval])"


def calls(*matchers: str) -> str:
    """Calls per second. From the last bucket: clients drop `_count` of histograms with negative bounds."""
    return rate(sdk(semconv.INFERENCE_DURATION, 'le="+Inf"', *matchers, suffix="_bucket"))


def share(part: str, whole: str, by: str = "") -> str:
    """Share of `part` in `whole`: 0, not absent, when the part was never seen."""
    group = f"by ({by}) " if by else ""
    return f"(sum {group}({part}) or 0 * sum {group}({whole})) / sum {group}({whole})"


def or_zero(expr: str, label: str) -> str:
    """`expr`, or when it has no series, one that is 0 and has the value `none` for `label`."""
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def quantile(q: float, metric: Metric) -> str:
    """Quantile of a histogram."""
    return f"histogram_quantile({q}, sum by (le) ({rate(sdk(metric, suffix='_bucket'))}))"


def state_share(state: str) -> str:
    """Live share of feature values in a state, by feature, from the SDK."""
    part = rate(sdk(semconv.FEATURE_OBSERVATIONS, CHOSEN, f'{STATE}="{state}"'))
    return share(part, rate(sdk(semconv.FEATURE_OBSERVATIONS, CHOSEN)), FEATURE)


def largest(metric: Metric) -> str:
    """The largest value over the targets of the model."""
    return f"max({by_feature(metric)})"


def limits(statistic: Metric) -> str:
    """The limits in force for a statistic, one series a level."""
    name = statistic.name.rpartition(".")[2]
    selector = drift(semconv.DRIFT_THRESHOLD, f'{STATISTIC}="{name}"')
    return f"max by ({LEVEL}) ({selector})"


def targets_with(status: str) -> str:
    """Number of targets with a status; absent while nothing was evaluated."""
    index = semconv.STATUSES.index(status)
    return f"sum({by_feature(semconv.DRIFT_STATUS)} == bool {index})"


# --- what the variables list --------------------------------------------------------------------------------

_FROM_SDK, _FROM_COLLECTOR = prometheus_name(semconv.INFERENCE_ROWS), prometheus_name(semconv.DRIFT_EVALUATED)


def services() -> str:
    """Query for the services that either side names, as the label `service`."""
    from_collector = f'label_replace({_FROM_COLLECTOR}, "service", "$1", "{SERVICE}", "(.+)")'
    from_sdk = f'label_replace({_FROM_SDK}, "service", "$1", "job", "(?:.*/)?(.+)")'
    return f"query_result(group by (service) ({from_collector} or {from_sdk}))"


def any_model(*matchers: str) -> str:
    """Selector of the series that either side has for every model."""
    names = f'__name__=~"{_FROM_SDK}|{_FROM_COLLECTOR}"'
    return f"{{{', '.join((names, *matchers))}}}"


def roles() -> str:
    """Values of the variable for the role, as Grafana reads them; `live` is also what has no role."""
    others = (role for role in semconv.ROLES if role != "live")
    return ", ".join(["live : |live", *(f"{role} : {role}" for role in others)])


def features() -> str:
    """Query for the features that either side names."""
    names = f"{prometheus_name(semconv.FEATURE_OBSERVATIONS)}|{_FROM_COLLECTOR}"
    return f'label_values({{__name__=~"{names}", {ONE_MODEL}}}, {FEATURE})'
