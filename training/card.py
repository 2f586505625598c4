"""The model card of a preset, written from its measured results."""

_TEMPLATE = """\
# {name}

{summary}

```python
import keras_vq

model = keras_vq.models.{model_class}.from_preset("{name}")
```

## Figures

| PSNR | SSIM | MSE | codes used | perplexity | raw bits per image |
|---|---|---|---|---|---|
| {psnr_db:.2f} dB | {ssim:.4f} | {mse:.5f} | {codes_used} of {codebook_size} \
| {perplexity:.1f} | {bits_per_image:.0f} |

Measured on {images} images: {data} {protocol}

## Training

- Data: {training_data}
- Command: `{command}`
- {steps} steps of {batch_size} images, Adam with a peak learning rate of \
{learning_rate}, {warmup_steps} steps of warm-up and a cosine to 0; weights \
averaged with momentum {weight_ema}.
- {parameters:,} parameters. Trained on {device} with keras {keras} and \
{backend} {backend_version} in {hours:.1f} hours ({images_per_second:.0f} \
images/s).

## Licence

{licence}

This card is written by the training command from `results.json`.
"""


def write_card(results: dict) -> str:
    """Text of the model card.

    Args:
        results: Dict with `evaluation`, `training` and the facts of the
            recipe, as the launcher writes it to results.json.

    Returns:
        Markdown.
    """
    values = {**results, **results["evaluation"], **results["training"]}
    return _TEMPLATE.format(**values)
