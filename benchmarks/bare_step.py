"""The training step that a Keras user would write for the same model.

Same networks, quantizer, losses, codebook update and logged values as in
`keras_vq.models.VQVAE`; nothing of what makes the package's step exact: no
shares of replicas and micro-batches, no gate, nothing put back afterwards.
"""

import keras
import tensorflow as tf

from keras_vq.metrics import CodebookPerplexity, CodesUsed


class BareModel(keras.Model):
    """Trains the networks and the quantizer of a VQVAE.

    Args:
        model: `keras_vq.models.VQVAE` with an `EMAVectorQuantizer`.
    """

    def __init__(self, model):
        super().__init__()
        self.encoder = model.encoder
        self.quantizer = model.quantizer
        self.decoder = model.decoder
        self.means = [
            keras.metrics.Mean(name=name)
            for name in ("loss", "reconstruction_loss", "commitment_loss")
        ]
        size = self.quantizer.codebook_size
        self.usage = [CodebookPerplexity(size), CodesUsed(size)]

    def train_step(self, images):
        """One step; returns the logs."""
        with tf.GradientTape() as tape:
            latents = self.encoder(images, training=True)
            output = self.quantizer(latents, training=True)
            reconstruction = self.decoder(output["quantized"], training=True)
            error = tf.reduce_mean(tf.square(images - reconstruction))
            commitment = output["losses"]["commitment"]
            loss = error + 0.25 * commitment
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.quantizer.update(output["statistics"], self.optimizer.iterations)
        for mean, value in zip(
            self.means, (loss, error, commitment), strict=True
        ):
            mean.update_state(value, sample_weight=tf.shape(images)[0])
        for metric in self.usage:
            metric.update_state(output["indices"])
        return {m.name: m.result() for m in [*self.means, *self.usage]}
