"""Trains ResNet18 with PyTorch Lightning:

    python lightning_train.py shards --epochs 30
    python lightning_train.py shards --epochs 40 --resume run/last.ckpt

The loaders take the place of PyTorch's: they shuffle, flip, shift and normalise, split the batches among the processes
of a training on several GPUs, and Lightning saves their place in a checkpoint.
"""

import argparse

import pytorch_lightning as pl
import tinyres
import tinyres.torch
import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18


class Classifier(pl.LightningModule):
    """ResNet18 with a stem for small images."""

    def __init__(self, classes, rate):
        super().__init__()
        self.save_hyperparameters()
        self.net = resnet18(num_classes=classes)
        self.net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)

    def training_step(self, batch, _):
        """Mean cross-entropy of a batch."""
        images, labels = batch
        loss = cross_entropy(self.net(images), labels, label_smoothing=0.1)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, _):
        """Logs the part of the images whose class is the first choice."""
        images, labels = batch
        right = (self.net(images).argmax(1) == labels).float().mean()
        self.log("top1", right, batch_size=len(labels), prog_bar=True, sync_dist=True)

    def configure_optimizers(self):
        """SGD with momentum, whose rate falls every 10 epochs."""
        optimizer = torch.optim.SGD(
            self.parameters(), self.hparams.rate, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.2)]


def main():
    """Trains and prints the top-1 accuracy on val."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--output", default="run")
    parser.add_argument("--resume", metavar="CHECKPOINT")
    args = parser.parse_args()

    ds = tinyres.open(args.shards)
    train = tinyres.torch.Loader(ds.train, args.batch, dtype="float32", flip=True, shift=4)
    val = tinyres.torch.Loader(ds.val, args.batch, dtype="float32", shuffle=False, drop_last=False)
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        callbacks=[pl.callbacks.ModelCheckpoint(args.output, save_last=True)],
        logger=False,
        # The loaders split the batches among processes themselves.
        use_distributed_sampler=False,
    )
    trainer.fit(Classifier(len(ds.train.classes), args.rate), train, val, ckpt_path=args.resume)
    print(f"top-1 {trainer.callback_metrics['top1']:.2%}")


if __name__ == "__main__":
    main()
