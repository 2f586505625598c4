"""The model card of a preset, written from its measured results."""

_TEMPLATE = """\
# {name}

{summary}

```python
import keras_vq

model = keras_vq.models.{model_class}.from_preset("{name}")
```

## Figures

{figures}

Measured on {images} images: {data} {protocol}
{comparison}
## Training

- Data: {training_data}
- Command: `{command}`
- {optimization}
- {size} Trained on {device} with keras {keras} and {backend} \
{backend_version} in {hours:.1f} hours ({images_per_second:.0f} images/s).

## Licence

{licence}

This card is written by the training command from `results.json`.
"""

_COMPARISON = """
## {title}

{figures}

![Images, {other}, {own}](comparison.png)

*From above: images, {other}, {own}.*

{fairness}
"""

# Title, name in the results, and how the value is written. Arrows say what is
# better.
_COLUMNS = (
    ("LPIPS ↓", "lpips", "{:.4f}"),
    ("Fréchet distance ↓", "frechet_distance", "{:.1f}"),
    ("PSNR ↑", "psnr_db", "{:.2f} dB"),
    ("SSIM ↑", "ssim", "{:.4f}"),
    ("MSE ↓", "mse", "{:.5f}"),
    ("codes used", "codes_used", "{}"),
    ("perplexity", "perplexity", "{:.1f}"),
    ("raw bits per image", "bits_per_image", "{:.0f}"),
)


def write_card(results: dict) -> str:
    """Text of the model card.

    Args:
        results: Dict with `evaluation`, `training` and the facts of the
            recipe, as the launcher writes it to results.json; with
            `baseline` the card compares both runs.

    Returns:
        Markdown.
    """
    evaluation, training = results["evaluation"], results["training"]
    return _TEMPLATE.format(
        **{**results, **evaluation, **training},
        figures=_table({"": evaluation}),
        comparison=_comparison(results),
        optimization=_optimization(training),
        size=_size(results),
    )


def _table(rows: dict) -> str:
    """A table with a row for each evaluation, by its name."""
    first = next(iter(rows.values()))
    columns = [column for column in _COLUMNS if column[1] in first]
    titles = [title for title, _, _ in columns]
    lines = [
        [name, *(_value(figures, *column[1:]) for column in columns)]
        for name, figures in rows.items()
    ]
    lines = [["", *titles], ["---"] * (len(columns) + 1), *lines]
    if not any(rows):
        lines = [line[1:] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(figures, name, form):
    text = by_level(figures[name], form)
    if name == "codes_used":
        text += f" of {by_level(figures['codebook_size'])}"
    return text


def by_level(value, form: str = "{}") -> str:
    """A figure as text, or those of all levels, coarse to fine."""
    values = value if isinstance(value, list) else [value]
    return " + ".join(form.format(value) for value in values)


def _comparison(results):
    if "baseline" not in results:
        return ""
    baseline, training = results["baseline"], results["training"]
    start = training.get("discriminator_start")
    if start is not None:
        title = "With and without the discriminator"
        other, own = "without", "with"
        fairness = (
            f"Both runs have the same first {start} steps, from which they "
            "went on with the same data for the other "
            f"{training['steps'] - start}."
        )
    else:
        title = f"Beside {baseline['name']}"
        other, own = baseline["name"], results["name"]
        fairness = (
            f"Both took as many steps of as many images; {other} has "
            f"{baseline['parameters']:,} parameters. Its command: "
            f"`{baseline['training']['command']}`."
        )
    return _COMPARISON.format(
        title=title,
        other=other,
        own=own,
        fairness=fairness,
        figures=_table(
            {other: baseline["evaluation"], own: results["evaluation"]}
        ),
    )


def _optimization(training):
    text = "{steps} steps of {batch_size} images, {optimizer}".format(
        **training
    )
    if training.get("discriminator_optimizer"):
        text += (
            "; against the discriminator from step {discriminator_start} on, "
            "which learned with {discriminator_optimizer}"
        ).format(**training)
    elif "discriminator_start" in training:
        text += "; the discriminator took no part"
    if training.get("dtype", "float32") != "float32":
        text += f", in {training['dtype']}"
    if training["weight_ema"]:
        text += f"; weights averaged with momentum {training['weight_ema']}"
    return f"{text}."


def _size(results):
    text = f"{results['parameters']:,} parameters"
    for name, count in results.get("parts", {}).items():
        text += f", {count:,} of which are the {name}'s"
    return f"{text}."
