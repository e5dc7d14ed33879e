"""Clip transforms: geometry, labels, colours and their inverse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cam.data.core.transforms import (
    ClipTransform,
    ColourJitter,
    View,
    denormalised_frames,
    finish,
    mirror_labels,
    normalisation,
    resize_mask,
    visible,
)
from lightning_cam.errors import ConfigError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clip_of(view: View) -> torch.Tensor:
    return finish(view.video, view.colour, view.grey)


def normalise(frames: torch.Tensor, mean: tuple, std: tuple) -> torch.Tensor:
    return finish(frames.transpose(0, 1), normalisation(mean, std), grey=False)


def jittered(
    jitter: ColourJitter, frames: torch.Tensor, generator: torch.Generator, constants: tuple
) -> torch.Tensor:
    order, colour, grey = jitter(normalisation(*constants), generator)
    return finish(frames.transpose(0, 1)[order], colour, grey)


def coordinates(height: int, width: int, steps: int = 2) -> torch.Tensor:
    """Frames that tell where each pixel came from: red = row, green = column, blue = step."""
    frames = torch.zeros(steps, 3, height, width, dtype=torch.uint8)
    frames[:, 0] = torch.arange(height)[:, None]
    frames[:, 1] = torch.arange(width)
    frames[:, 2] = torch.arange(steps)[:, None, None]
    return frames


@given(st.integers(0, 2**31), st.sampled_from([IMAGENET, ((0.45,) * 3, (0.225,) * 3)]))
@settings(max_examples=20, deadline=None)
def test_to_frames_is_the_inverse_of_normalising(seed: int, constants: tuple) -> None:
    frames = torch.randint(0, 256, (5, 3, 7, 9), generator=generator(seed), dtype=torch.uint8)
    clip = normalise(frames, *constants)
    assert clip.shape == (3, 5, 7, 9)
    assert clip.is_contiguous()
    back = denormalised_frames(clip[None], *constants)
    assert back.shape == (1, 5, 7, 9, 3)
    assert (torch.from_numpy(back[0]) == frames.permute(0, 2, 3, 1)).all()


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2])]
)
def test_any_number_of_channels(channels: int, shown: list[int]) -> None:
    constants = ([0.1, 0.2, 0.3, 0.4][:channels], [0.5, 0.6, 0.7, 0.8][:channels])
    frames = torch.randint(0, 256, (5, channels, 20, 30), generator=generator(0)).byte()
    transform = ClipTransform(20, 20, *constants, hflip=0.0, jitter=ColourJitter(0.2, 0.3))
    clip = clip_of(transform(frames))
    assert clip.shape == (channels, 5, 20, 20)
    assert clip.is_contiguous()
    want = frames[..., 5:25].transpose(0, 1)
    assert (visible(want) == want[shown]).all()
    back = torch.from_numpy(denormalised_frames(clip[None], *constants))[0]  # (T, H, W, 3)
    assert (back == want[shown].permute(1, 2, 3, 0)).all()
    # Each channel has an offset of its own, all have one gain.
    plain, moved = (normalise(frames, *constants), transform(frames, None, generator(1)))
    assert plain.shape == (channels, 5, 20, 30)
    gains = moved.colour[0] / normalisation(*constants)[0]
    torch.testing.assert_close(gains, gains[:1].expand(channels))
    offsets = moved.colour[1] - gains * normalisation(*constants)[1]
    assert 0 < offsets.abs().max() <= 0.3 + 1e-5
    assert len(set(offsets.tolist())) == channels


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("name", ["permute", "grey"])
def test_colours_are_of_three_channels(channels: int, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=0.5.*three channels.*have {channels}"):
        ClipTransform(
            mean=[0.5] * channels, std=[0.5] * channels, jitter=ColourJitter(**{name: 0.5})
        )


@given(
    st.integers(0, 2**31),
    st.sampled_from([ColourJitter(0.2, 0.3), ColourJitter(0.2, 0.3, permute=0.6, grey=0.4)]),
)
@settings(max_examples=40, deadline=None)
def test_jitter_is_what_its_settings_say_of_the_normalised_clip(
    seed: int, jitter: ColourJitter
) -> None:
    frames = torch.randint(0, 256, (2, 3, 4, 5), generator=generator(seed), dtype=torch.uint8)
    # The numbers that versions before 0.5 drew, so that their runs can be repeated.
    source = generator(seed)
    u, order = torch.rand(6, generator=source), torch.randperm(3, generator=source)
    want = normalise(frames, *IMAGENET)
    if u[4] < jitter.grey:
        want = want.mean(0, keepdim=True).expand(3, -1, -1, -1)
    elif u[5] < jitter.permute:
        want = want[order]
    want = want * (1 + jitter.contrast * (2 * u[0] - 1))
    want = want + jitter.offset * (2 * u[1:4] - 1).view(3, 1, 1, 1)
    got = jittered(jitter, frames, generator(seed), IMAGENET)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_clip_is_finished_alone_as_in_a_batch() -> None:
    jitter = ColourJitter(0.2, 0.3, permute=0.4, grey=0.4)
    transform = ClipTransform(resize=21, crop=17, jitter=jitter)
    frames = torch.randint(0, 256, (3, 3, 24, 33), generator=generator(0), dtype=torch.uint8)
    views = [transform(frames, None, generator(seed)) for seed in range(12)]
    grey = [view.grey for view in views]
    assert set(grey) == {False, True}
    video, colour = (torch.stack([view[k] for view in views]) for k in (0, 1))
    copy = video.clone()
    batch = finish(video, colour, grey)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous()
    assert (video == copy).all()
    for row, view in zip(batch, views, strict=True):
        assert (row == clip_of(view)).all()
    with pytest.raises(ValueError, match="zip"):
        finish(video, colour, grey[:3])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_resizing_before_or_in_the_transform_is_the_same(
    steps: int, layout: torch.memory_format
) -> None:
    frames = torch.randint(0, 256, (steps, 3, 50, 61), generator=generator(0), dtype=torch.uint8)
    frames = frames.contiguous(memory_format=layout)
    transform = ClipTransform(resize=40, crop=32)
    for seed in range(6):
        here, before = (
            transform(x, None, generator(seed)) for x in (frames, transform.shrink(frames))
        )
        assert here.video.is_contiguous()
        assert here.video.dtype == torch.uint8
        assert (here.video == before.video).all()
        assert here.flipped == before.flipped


def test_normalising_is_the_formula() -> None:
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    want = [(v - m) / s for v, m, s in zip((0, 0.2, 1), *IMAGENET, strict=True)]
    torch.testing.assert_close(normalise(frames, *IMAGENET).flatten(), torch.tensor(want))


def test_to_frames_clips_what_jitter_pushed_out_of_range() -> None:
    clip = torch.tensor([-9.0, 0.0, 9.0]).view(1, 3, 1, 1, 1)
    assert denormalised_frames(clip, (0.5,) * 3, (0.5,) * 3).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("size", "want"), [((240, 320), (60, 80)), ((320, 240), (80, 60)), ((61, 61), (60, 60))]
)
def test_shrink_sets_the_short_side(size: tuple[int, int], want: tuple[int, int]) -> None:
    transform = ClipTransform(resize=60, crop=56)
    frames = transform.shrink(torch.full((2, 3, *size), 7, dtype=torch.uint8))
    assert frames.shape == (2, 3, *want)
    assert frames.dtype == torch.uint8
    assert (frames == 7).all()


def test_evaluation_takes_the_centre() -> None:
    clip = clip_of(ClipTransform(resize=20, crop=8, **PLAIN)(coordinates(20, 30))) * 255
    assert clip[0, 0, :, 0].round().tolist() == list(range(6, 14))
    assert clip[1, 0, 0].round().tolist() == list(range(11, 19))
    assert clip[2, :, 0, 0].round().tolist() == [0, 1]


def test_training_crops_everywhere_and_alike_in_all_frames() -> None:
    transform = ClipTransform(resize=12, crop=8, hflip=0.0, **PLAIN)
    corners = set()
    for seed in range(300):
        clip = transform(coordinates(20, 12), generator=generator(seed)).video
        assert (clip[:2, 0] == clip[:2, 1]).all()
        corners.add((int(clip[0, 0, 0, 0]), int(clip[1, 0, 0, 0])))
    assert {top for top, _ in corners} == set(range(13))
    assert {left for _, left in corners} == set(range(5))


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_mask_follows_the_frames(seed: int) -> None:
    mask = torch.rand(3, 20, 26, generator=generator(seed)) < 0.3
    frames = (mask[:, None] * 255).to(torch.uint8).expand(3, 3, 20, 26)
    view = ClipTransform(resize=20, crop=11, **PLAIN)(frames, mask, generator(seed + 1))
    assert view.mask is not None
    assert view.mask.dtype == torch.bool
    assert ((view.video[0] > 127) == view.mask).all()


def test_mask_is_resized_by_area() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :4, :6] = True
    want = torch.zeros(1, 4, 4, dtype=torch.bool)
    want[:, :2, :3] = True
    assert (resize_mask(mask, (4, 4)) == want).all()


def test_flip_turns_frames_and_mask_and_says_so() -> None:
    frames, mask = coordinates(6, 6), torch.zeros(2, 6, 6, dtype=torch.bool)
    mask[:, 1, 0] = True
    transform = ClipTransform(resize=6, crop=6, hflip=1.0, **PLAIN)
    view = transform(frames, mask, generator(0))
    assert view.flipped
    assert view.mask is not None
    assert view.video[1, 0, 0].tolist() == [5, 4, 3, 2, 1, 0]
    assert view.mask.nonzero()[:, 1:].tolist() == [[1, 5], [1, 5]]
    assert not transform(frames, mask, generator(0), flippable=False).flipped
    assert not transform(frames, mask).flipped  # never in evaluation


def test_mirror_labels() -> None:
    names = ["down", "left", "right"]
    assert mirror_labels(names, [["left", "right"]]) == [0, 2, 1]
    assert mirror_labels(names, []) == [0, 1, 2]
    assert mirror_labels(names, None) == [None] * 3
    # The partner is not a class of this set: what the mirrored clip shows has no label.
    assert mirror_labels(["down", "left"], [["left", "right"]]) == [0, None]


def test_jitter_is_one_change_for_the_whole_clip() -> None:
    frames = torch.randint(0, 256, (4, 3, 5, 6), generator=generator(0), dtype=torch.uint8)
    clip = normalise(frames, *IMAGENET)
    jitter = ColourJitter(contrast=0.2, offset=0.3)
    gains, shifts = [], []
    for seed in range(100):
        out = jittered(jitter, frames, generator(seed), IMAGENET)
        gain = ((out[0] - out[0].mean()) / (clip[0] - clip[0].mean())).mean().item()
        shift = (out - gain * clip).flatten(1)
        assert (shift.amax(1) - shift.amin(1)).max() < 1e-5
        gains.append(gain)
        shifts.append(shift[:, 0])
    assert 0.8 <= min(gains) < 0.85
    assert 1.15 < max(gains) <= 1.2
    assert torch.stack(shifts).abs().max() <= 0.3 + 1e-5
    assert torch.stack(shifts).std(0).min() > 0.1  # each channel has its own


def test_jitter_permutes_or_drops_colour() -> None:
    frames = torch.arange(3).byte().view(1, 3, 1, 1).expand(2, 3, 2, 2)
    same = (0.0,) * 3, (1 / 255,) * 3
    orders = {
        tuple(
            jittered(ColourJitter(permute=1.0), frames, generator(seed), same)[:, 0, 0, 0].tolist()
        )
        for seed in range(60)
    }
    assert len(orders) == 6
    grey = jittered(ColourJitter(grey=1.0, permute=1.0), frames, generator(0), same)
    torch.testing.assert_close(grey, torch.ones(3, 2, 2, 2))


def test_randomness_is_the_generators_alone() -> None:
    transform = ClipTransform(
        resize=20, crop=8, jitter=ColourJitter(contrast=0.2, offset=0.2, permute=0.5, grey=0.2)
    )
    before = torch.get_rng_state()
    one, same, other = (
        clip_of(transform(coordinates(20, 30), None, generator(s))) for s in (1, 1, 2)
    )
    assert (torch.get_rng_state() == before).all()
    assert (one == same).all()
    assert not torch.equal(one, other)


def test_frames_are_not_changed() -> None:
    frames = coordinates(8, 8)
    copy = frames.clone()
    ClipTransform(resize=8, crop=8, hflip=1.0, jitter=ColourJitter(0.5, 0.5))(
        frames, None, generator(0)
    )
    assert (frames == copy).all()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="crop=300"):
        ClipTransform(resize=256, crop=300)
    with pytest.raises(ConfigError, match="std"):
        ClipTransform(std=(1.0, 0.0, 1.0))
    for odd in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="std > 0"):
            ClipTransform(std=(1.0, odd, 1.0))
        with pytest.raises(ConfigError, match="std > 0"):
            ClipTransform(mean=(odd, 0.0, 0.0))
    for mean in ([], [0.5], [0.5] * 4):
        with pytest.raises(ConfigError, match="one number per channel"):
            ClipTransform(mean=mean, std=(1.0,) * 3)
    for wrong in (-0.1, 1.01, 5, float("nan"), "often"):
        with pytest.raises(ConfigError, match=r"hflip=.*from 0 to 1"):
            ClipTransform(hflip=wrong)
        for name in ("permute", "grey"):
            with pytest.raises(ConfigError, match=rf"{name}=.*from 0 to 1"):
                ColourJitter(**{name: wrong})
