"""Layers of any vision model against human inferior temporal cortex, by RSA (92 photographs).

    launch/local.sh -m jaxalign.main --config=configs/images92.py:MODEL --data_root=path/to/data

MODEL is a name (`dinov2-small`, `clip-vit-l14`) or a directory; several are given with commas. The
data root holds `images92/`. Beside the model stand the same network with random weights, pixels,
monkey IT and the models of the data set, under the noise ceiling of the four people, .372 to .666.
The page is `<workdir>/rsa/index.html`. CLS is read where a model has it: give
`--config.extract.pooling=mean` for one that has none, such as SigLIP. A tower of 22 M parameters
takes half a minute on two cores.
"""

from jaxalign import config
from jaxalign.errors import InputError
from jaxalign.stages import extract, rsa


def get_config(models=""):
    names = tuple(x for x in models.split(",") if x)
    if not names:
        raise InputError("--config=configs/images92.py:MODEL[,MODEL...] must name a model.")
    return config.pack(
        config.Common(dataset="images92"),
        extract=extract.Config(models=names, pooling="cls"),
        rsa=rsa.Config(),
    )
