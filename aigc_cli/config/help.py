"""What ``--help`` prints."""

from __future__ import annotations

from aigc_cli.config.words import COMMANDS
from aigc_cli.errors import ConfigError, suggest


def help_text(command: str | None) -> str:
    """The help of a command, or of the whole program."""
    if command is None:
        return _OVERVIEW.strip()
    if command not in _TEXTS:
        raise ConfigError(f"there is no command {command!r}", suggest(command, COMMANDS))
    return _TEXTS[command].strip()


_OVERVIEW = """
aigc trains, samples and evaluates generative models from configuration.

usage: aigc COMMAND [key=value ...] [flags]

commands
  train         train a model, or go on with a run
  sample        draw samples from a run
  eval          measure how good a run's samples are
  embed         turn lines of text into vectors
  ls            list models, data, metrics or runs
  completion    print the completion script for bash

flags
  -h, --help         what a command does, its most used keys, examples
  --cfg job          print the configuration and stop
  --plugin MODULE    import a module that registers models or data of your own
  --debug            show tracebacks
  --version

start here
  aigc train         a GAN on the digits that come with the install, a minute and a half on a CPU
  aigc sample        its digits, as pictures
  aigc eval          how good they are
"""

_TRAIN = """
aigc train: train a model, or go on with a run

usage: aigc train [key=value ...] [flags]

keys (`aigc train --cfg job` prints them all with their values)
  model= data= optimizer=      what to train, on what, with what (`aigc ls models`, `aigc ls data`)
  experiment=                  a whole recipe, from configs/experiment
  data.root=FOLDER             data already on disk
  model.init_from=RUN          start from another run's weights
  optimizer.lr=                the learning rate
  trainer.steps= trainer.batch_size= trainer.device=auto|cpu|cuda
  trainer.precision=auto|fp32|bf16|fp16 trainer.compile= trainer.ema=
  trainer.checkpoint_every= trainer.keep= trainer.validate_every= trainer.accumulate=
  seed=0 run_dir=FOLDER        every random draw follows from the seed

flags
  --resume [RUN]     go on with a run: the newest, or the one named
  -m, --multirun     sweep over every combination of comma-separated values
  --cfg job          print the configuration and stop

examples
  aigc train model=gan data=cifar10 data.root=/data/cifar10
  aigc train --resume trainer.steps=20000
  aigc train -m model=gan optimizer.lr=1e-4,2e-4 seed=0,1
"""

_SAMPLE = """
aigc sample: draw samples from a run

usage: aigc sample [key=value ...] [flags]

keys
  run=latest         a directory, a run's name, or latest
  n= seed=0          how many (64; 32 reconstructions, 8 rows or texts); sample i stays the same
  out=FOLDER         where they go
  batch_size= step=  of the drawing, and of the checkpoint
  format=png|npz     a file each, or one NumPy array with the labels; texts have txt
  prompt_file=FILE   a prompt a line, n= (1) texts from each
  data.root=FOLDER   where the run's data lies now, for what needs it

controls: a model's own words; a wrong one is answered with those that its model has
  mode=sample        samples by themselves
  mode=reconstruct   held-out items above their reconstructions (VAEs)
  mode=interpolate   rows that walk from one latent to another, of frames=8 samples each
  prompt= to=        the texts that such a walk goes between (VAEs of text)
  mode=traverse      rows that move one latent from -3 to 3, the most active one first (VAEs)
  class=cat,dog      the classes to draw, in turn, of a model trained with model.conditional=true
  temperature=0.8    spread of what is drawn: below 1, more typical samples of less variety (VAEs)
  truncation=1.5     the same for GANs: latents within so many standard deviations
  prior=gmm          latents from a Gaussian mixture fitted on the encoded training set (VAEs)
  prompt="The "      what a text begins with, or is made from
  top_k= top_p= min_p= max_tokens= beam=    how it is written
  mode=infill        a prompt with its gaps filled, such as prompt="to be, or ____" (BERT)

flags
  --cfg job          print the configuration and stop
  --json             print one JSON object and nothing else on stdout

examples
  aigc sample
  aigc sample run=gan-cifar10/2026-01-31_12-00-00 n=1000 out=pictures class=cat,dog
  aigc sample seed=7 step=4000 mode=interpolate
"""

_EVAL = """
aigc eval: measure how good a run's samples are

usage: aigc eval [key=value ...] [flags]
       aigc eval compare run=A,B [key=value ...]
       aigc eval stats data=NAME out=FILE.npz

keys
  run=latest         a directory, a run's name, or latest
  metric=fd,prdc     which figures (`aigc ls metrics`); the same as --metric fd,prdc
  n= seed=0 seeds=   how many samples, their seed, and how many independent sets of them
  split= data=       the real items they are held against, and another dataset than the run's
  reference=RUN      another run's samples in their place
  extractor= weights=FILE resize=tf_bilinear|clean    what looks at the images
  fake=FOLDER real=FOLDER    images on disk (or .npz, statistics) instead; for text metrics, files
  and the model's own controls, such as truncation= prior= class= mode=reconstruct

flags
  --metric NAME[,NAME]
  --json             print one JSON object and nothing else on stdout

examples
  aigc eval --metric fid,kid n=50000 split=train
  aigc eval fake=pictures real=photographs --metric fid
  aigc eval compare run=gan-digits/first,gan-digits/second --metric kd
"""

_EMBED = """
aigc embed: turn lines of text into vectors

usage: aigc embed FILE [key=value ...] [flags]
       aigc embed text="..." [key=value ...] [flags]

keys
  run=latest         a run on text: of model=bert, say; a directory, a run's name, or latest
  input=FILE         UTF-8 text, a vector for each of its lines; the same as FILE alone
  out=FILE.npz       `vectors`, float32, with the number (`lines`) and the `sha256` of their lines
  neighbours=3       name the nearest others of each line, by cosine similarity
  step= batch_size=  the checkpoint, and the lines at a time

flags
  --cfg job          print the configuration and stop
  --json             print one JSON object and nothing else on stdout

examples
  aigc embed sentences.txt out=vectors.npz
  aigc embed sentences.txt neighbours=3
  aigc embed run=bert-shakespeare/2026-01-31_12-00-00 text="to be or not to be"
"""

_LS = """
aigc ls: list models, data, metrics or runs

usage: aigc ls [models|data|metrics|runs] [--json]

  models, data, metrics    the names to use after model=, data= and metric=, yours among them
  runs                     every run in outputs/: its state, how far it is, its last figures

examples
  aigc ls models
  aigc ls runs
  aigc ls data --json
"""

_COMPLETION = """
aigc completion: print the completion script for bash

usage: aigc completion bash

It completes commands, flags, keys, the names after model= and the like, and runs.

examples
  eval "$(aigc completion bash)"
  aigc completion bash >> ~/.bashrc
  aigc completion bash > ~/.local/share/bash-completion/completions/aigc
"""

_TEXTS = {
    "train": _TRAIN,
    "sample": _SAMPLE,
    "eval": _EVAL,
    "embed": _EMBED,
    "ls": _LS,
    "completion": _COMPLETION,
}
