import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryomamba_crds.resource import Inference, Preview
from cryomamba_crds.task import InferenceParams, PreviewParams
from cryomamba_crds.wishes import inference_params, inference_wish, preview_params, preview_wish

_EDGES = st.integers(1, 10**15).map(lambda picometres: float(f"{picometres / 1e9:.9f}")).filter(lambda edge: edge < 1e6)
_PARAMS = st.builds(
    InferenceParams,
    folds=st.just("all") | st.lists(st.integers(0, 99), min_size=1, max_size=10, unique=True) | st.just(["all"]),
    step_size=st.integers(10, 100).map(lambda percent: percent / 100),
    mirroring=st.booleans(),
    save_probabilities=st.booleans(),
    object_table=st.booleans(),
    spacing_policy=st.sampled_from([None, "ignore", "nm"]),
    voxel_size_nm=st.none() | st.tuples(_EDGES, _EDGES, _EDGES),
    invert=st.booleans(),
)


@given(_PARAMS)
def test_a_tasks_parameters_come_back_from_the_resource(params: InferenceParams) -> None:
    wish = Inference.model_validate(inference_wish(params).model_dump(by_alias=True))

    assert inference_params(wish) == params


def test_defaults_are_the_same_in_both_forms() -> None:
    assert inference_params(Inference()) == InferenceParams()
    assert preview_params(Preview()) == PreviewParams()


@pytest.mark.parametrize(
    "params",
    [InferenceParams(step_size=0.333), InferenceParams(voxel_size_nm=(1.0, 1.0, 1.23456789012))],
)
def test_what_a_resource_cannot_hold_is_refused_and_not_rounded(params: InferenceParams) -> None:
    with pytest.raises(ValueError, match=r"whole percentage|9 decimals"):
        inference_wish(params)


def test_an_interval_is_rounded_up() -> None:
    assert preview_wish(PreviewParams(interval_seconds=1.2)).interval_seconds == 2
