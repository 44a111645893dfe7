"""Any valid view configuration, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from understudy.data.view_config import ViewConfig


def _crop() -> st.SearchStrategy[dict]:
    resized = st.fixed_dictionaries(
        {
            "scale": st.sampled_from([[0.08, 1.0], [0.5, 0.9], [1.0, 1.0]]),
            "ratio": st.sampled_from([[3 / 4, 4 / 3], [1.0, 1.0], [3.0, 5.0]]),
            "interpolation": st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box"]),
        }
    ).map(lambda options: {"random_resized_crop": options})
    padded = st.fixed_dictionaries({"padding": st.integers(0, 5), "fill": st.integers(0, 255)}).map(
        lambda options: {"random_crop": options}
    )
    fixed = st.sampled_from(
        [
            {"resize": {"mode": "squash"}},
            {"resize": {}, "center_crop": {}},
            {"resize": {"size": 40}, "center_crop": {"size": 33}, "random_resized_crop": {}},
            {"resize": {"size": 36}, "random_crop": {"padding": 2}},
        ]
    )
    return st.one_of(resized, padded, fixed)


def _rest() -> st.SearchStrategy[dict]:
    parts = {
        "random_horizontal_flip": st.fixed_dictionaries({"p": st.sampled_from([0.0, 0.5, 1.0])}),
        "rand_augment": st.fixed_dictionaries(
            {
                "num_ops": st.integers(1, 3),
                "magnitude": st.integers(0, 30),
                "p": st.sampled_from([0.5, 1.0]),
                "interpolation": st.sampled_from(["nearest", "bilinear"]),
                "fill": st.sampled_from([0, 128]),
            }
        ),
        "random_erase": st.fixed_dictionaries(
            {"p": st.sampled_from([0.5, 1.0]), "value": st.sampled_from([0.0, 0.5])}
        ),
        "mixup": st.fixed_dictionaries(
            {
                "p": st.sampled_from([0.5, 1.0]),
                "alpha": st.sampled_from([1.0, 0.2]),
                "div_by": st.sampled_from([1.0, 2.0]),
            }
        ),
        "cutmix": st.fixed_dictionaries({"p": st.sampled_from([0.5, 1.0])}),
        "uint8": st.just({}),
        "to_tensor": st.just({}),
        "normalize": st.just({}),
    }
    return st.fixed_dictionaries({}, optional=parts)


@st.composite
def configs(draw: st.DrawFn, max_size: int = 24) -> ViewConfig:
    """Draw any valid view configuration of small views."""
    transforms = {**draw(_rest()), **draw(_crop())}
    return ViewConfig(
        size=draw(st.integers(1, max_size)),
        transforms=transforms,
        round_mixed=draw(st.booleans()),
    )
