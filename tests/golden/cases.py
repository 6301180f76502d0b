"""The command lines whose results ``figures.py`` writes down: tiny runs of every family, their samples and figures."""

from __future__ import annotations

#: Of every run, unless it says otherwise; what comes later on a command line wins.
COMMON = [
    "trainer.steps=5", "trainer.batch_size=8", "trainer.checkpoint_every=3", "trainer.log_every=2",
    "trainer.sample_every=null", "trainer.examine_every=null", "trainer.device=cpu", "trainer.threads=1",
]  # fmt: skip
#: Runs that are looked at while they train: previews, the model's own curves, and held-out figures.
WATCHED = ["trainer.sample_every=3", "trainer.samples=6", "trainer.examine_every=3", "trainer.validate_every=3"]
BARE = ["recipe=null"]

DIGITS = ["data=digits", "data.size=8"]
FOLDER = ["recipe=null", "data=image_folder", "data.root=pictures", "data.size=16", "data.flip=true"]
GAN = ["model=gan", *DIGITS, *BARE, "model.conditional=false"]
MLP = [*GAN, "model.network=mlp", "model.hidden=16", "model.latent=4"]
NARROW = ["model.width=8", "model.max_width=16", "model.discriminator_width=8", "model.latent=20"]
VAE = ["model=vae", *DIGITS, *BARE, "model.width=4", "model.hidden=16", "model.latent=4"]
HVAE = ["model=hvae", *DIGITS, *BARE, "model.width=8", "model.latent=2", "model.components=2"]
VQVAE = ["model=vqvae", *DIGITS, *BARE, "model.width=8", "model.blocks=1", "model.codes=16", "model.downsampling=2"]

FLAT_VAE = ["model=vae", "recipe=null", "data=image_folder", "model.network=mlp", "model.hidden=8", "model.latent=2"]

CHAR = "data.tokenizer.kind=char"
WINDOWS = ["recipe=null", "data=text", "data.root=lines.txt", "data.context=16"]
LINES = [
    "recipe=null", "data=text", "data.root=lines.txt", "data.lines=true", "data.items=documents", "data.context=48"
]  # fmt: skip
SMALL = ["model.width=16", "model.layers=1", "model.heads=2"]
CLASSIC = [
    "model.style.norm=layer", "model.style.positions=learned", "model.style.mlp=gelu", "model.style.qk_norm=false",
    "model.style.bias=true",
]  # fmt: skip
PAIRS = ["model=seq2seq", "recipe=null", "data=pairs", "data.batch_tokens=128", *SMALL]
TWO_FILES = ["data.root=pairs", "data.source=en", "data.target=de", "data.max_length=64"]
#: Long enough for a model of text to write words and to end what it writes.
LONGER = ["trainer.steps=80", "trainer.checkpoint_every=30", "trainer.log_every=20", "optimizer.lr=1e-2"]
SEEN_LONGER = [*LONGER, "trainer.sample_every=40", "trainer.samples=6", "trainer.validate_every=40"]
DECODER = ["model=transformer", *WINDOWS, *SMALL]
BERT = ["model=bert", *WINDOWS, *SMALL]
TEXT_VAE = ["model=vae_text", *SMALL, "model.decoder_layers=1", "model.latent=4", "model.kl_warmup=3"]

#: The words of `aigc train` by the run's name.
RUNS: dict[str, list[str]] = {
    "default": ["trainer.steps=2"],
    "default-vae": ["model=vae", "trainer.steps=2"],
    **{
        f"gan-{loss}": [*MLP, f"model.loss={loss}"]
        for loss in ("minimax", "hinge", "lsgan", "wgan", "relativistic")
    },
    "gan": [*MLP, *WATCHED, "trainer.validate_metric=fd", "trainer.validate_items=40"],
    "gan-conditional": [*MLP, "model.conditional=true", "model.augment=[ada]", "model.consistency=1", "seed=3"],
    "gan-dcgan": [*GAN, *NARROW, "model.network=dcgan", "model.minibatch_stddev=true", "model.dropout=0.1",
                  "model.lecam=0.1", "optimizer=rmsprop"],
    "gan-resnet": [*GAN, *NARROW, "model.network=resnet", "model.conditional=true", "model.attention=8",
                   "model.discriminator_norm=group", "model.augment=[translation,color,cutout,flip]"],
    "gan-biggan": [*GAN, *NARROW, "model.network=biggan", "model.generator_spectral_norm=true",
                   "model.spectral_norm=true", "model.init=orthogonal", "model.discriminator_steps=2"],
    "gan-r3gan": [*GAN, *NARROW, "model.network=r3gan", "model.loss=relativistic", "model.r1_every=2",
                  "model.generator_norm=none", "optimizer.generator.lr=1e-3"],
    "gan-folder": ["model=gan", *FOLDER, *NARROW, "model.conditional=true"],
    **{preset: [f"model={preset}", *DIGITS, *NARROW, "trainer.steps=3"]
       for preset in ("dcgan", "sngan", "wgan_gp", "biggan", "r3gan_small")},
    "vae": [*VAE, *WATCHED],
    "vae-mlp": [*VAE, "model.network=mlp", "model.likelihood=bernoulli", "model.conditional=true", "optimizer=sgd"],
    "vae-resnet": [*VAE, "model.network=resnet", "model.likelihood=logistic_mixture", "model.latent_side=4",
                   "model.norm=group", "trainer.ema=null", "trainer.clip_grad_norm=1"],
    "vae-iwae": [*VAE, "model.likelihood=gaussian", "model.importance_samples=3", "trainer.ema_start=2"],
    "vae-parquet": ["model=vae", "recipe=null", "data=parquet", "data.root=pictures.parquet", "data.size=16",
                    "model.width=4", "model.hidden=0", "model.latent=4", "model.likelihood=gaussian_pixel",
                    "model.norm=batch", "model.beta=2", "model.free_bits=0.1", "model.kl_warmup=3", "data.flip=true"],
    "hvae": [*HVAE, *WATCHED],
    "hvae-conditional": [*HVAE, "model.conditional=true", "model.layout=[1x1,4x2]", "model.whole_map=false",
                         "model.coarse_first=3", "model.likelihood=gaussian_fixed"],
    "vqvae": [*VQVAE, *WATCHED],
    "vqvae-cosine": [*VQVAE, "model.cosine=true", "model.reconstruction=logistic_mixture", "trainer.accumulate=2"],
    "vqvae-folder": ["model=vqvae", *FOLDER, "model.width=8", "model.blocks=1", "model.codes=16", "data.labels=false"],
    "transformer": [*DECODER, CHAR, *SEEN_LONGER],
    "transformer-classic": [*DECODER, "data.tokenizer.kind=byte", *CLASSIC, "model.dropout=0.1",
                            "model.tie_embeddings=false", "optimizer=adamw", "optimizer.schedule=cosine"],
    "transformer-pydocs": ["model=transformer", *SMALL, "data.context=32", "data.tokenizer.vocab_size=300"],
    "transformer-lines": ["model=transformer", *LINES, "data.tokenizer.vocab_size=270", *SMALL,
                          "data.split_by=document", "trainer.precision=bf16"],
    "transformer-lora": [*DECODER, "model.init_from=golden/transformer", "model.lora.rank=2"],
    "bert": [*BERT, CHAR, *SEEN_LONGER],
    "bert-mlm": [*BERT, CHAR, "model.objective=mlm", "model.mixed_masks=true", *CLASSIC],
    "bert-warm": [*BERT, "model.init_from=golden/transformer"],
    "seq2seq": [*PAIRS, *TWO_FILES, CHAR, *SEEN_LONGER],
    "seq2seq-fields": [*PAIRS, "data.root=squares.tsv", "data.source=question", "data.target=answer",
                       "data.tokenizer.vocab_size=270", "model.label_smoothing=0", *CLASSIC],
    "vae_text": [*TEXT_VAE, *LINES, CHAR, *SEEN_LONGER, "trainer.examine_every=40"],
    "vae_text-fields": [*TEXT_VAE, "recipe=null", "data=text", "data.root=squares.tsv",
                        "data.field=question", "data.items=documents", "data.context=20", CHAR],
    # data in other shapes, and training in two processes
    "vae-zip": [*FLAT_VAE, "data.root=pictures.zip", "data.size=16", "data.channels=1", "data.flip=false"],
    "vae-splits": [*FLAT_VAE, "data.root=split-pictures", "data.size=8", "data.labels=false", "data.flip=true"],
    "transformer-rows": ["model=transformer", "recipe=null", "data=text", "data.root=rows.jsonl.gz",
                         "data.field=text", "data.items=documents", "data.context=40", CHAR, *SMALL],
    "transformer-splits": [
        "model=transformer", "recipe=null", "data=text", "data.root=split-texts", "data.context=16", CHAR, *SMALL
    ],
    "vae-two": [*VAE, "trainer.devices=2"],
    "transformer-two": [*DECODER, CHAR, "trainer.devices=2", "trainer.sharding=full"],
}  # fmt: skip

#: Runs on the real data that AIGC_TEST_DATA names, linked as ``shared``.
REAL_RUNS: dict[str, list[str]] = {
    "cifar10": ["model=vae", "recipe=null", "data=cifar10", "data.root=shared/cifar10", "model.width=4",
                "model.hidden=8", "model.latent=4"],
    "shakespeare": ["model=transformer", "data=shakespeare", "data.root=shared/shakespeare", "recipe=null", *SMALL],
    "multi30k": ["model=seq2seq", "data=multi30k", "data.root=shared/multi30k", "recipe=null",
                 "data.tokenizer.kind=byte", *SMALL],
    "multi30k-de": ["model=vae_text", "data=multi30k", "data.root=shared/multi30k", "data.only=de", CHAR, *SMALL],
}  # fmt: skip

#: What `aigc train --resume` goes on with, after the run is there.
RESUMED: dict[str, list[str]] = {"gan-hinge": ["trainer.steps=8"], "transformer-classic": ["trainer.steps=8"]}

#: The run and the further words of each `aigc sample`.
SAMPLES: dict[str, tuple[str, list[str]]] = {
    "gan": ("gan", ["n=5"]),
    "gan-truncated": ("gan", ["n=3", "truncation=0.5", "format=npz", "seed=4"]),
    "gan-older": ("gan", ["n=2", "step=3"]),
    "gan-walk": ("gan", ["n=2", "mode=interpolate", "frames=3"]),
    "gan-classes": ("gan-conditional", ["n=4", "class=7,0"]),
    "gan-all-classes": ("gan-resnet", ["n=12", "format=npz"]),
    "gan-class-walk": ("gan-conditional", ["n=2", "mode=interpolate"]),
    **{f"gan-{network}": (f"gan-{network}", ["n=2"]) for network in ("dcgan", "biggan", "r3gan", "folder")},
    "vae": ("vae", ["n=5", "temperature=0.7"]),
    "vae-gmm": ("vae", ["n=3", "prior=gmm"]),
    "vae-best": ("vae", ["n=2", "step=best", "batch_size=1"]),
    "vae-reconstruct": ("vae", ["n=3", "mode=reconstruct"]),
    "vae-walk": ("vae", ["n=2", "mode=interpolate"]),
    "vae-traverse": ("vae", ["n=2", "mode=traverse", "frames=4"]),
    "vae-map": ("vae-resnet", ["n=2"]),
    "vae-conditional": ("vae-mlp", ["n=2", "mode=reconstruct"]),
    "vae-conditional-traverse": ("vae-mlp", ["n=2", "mode=traverse", "class=3"]),
    "vae-parquet": ("vae-parquet", ["n=2", "mode=reconstruct"]),
    "hvae": ("hvae", ["n=3"]),
    "hvae-gmm": ("hvae", ["n=3", "prior=gmm", "temperature=0.5"]),
    "hvae-reconstruct": ("hvae", ["n=2", "mode=reconstruct", "seed=2"]),
    "hvae-walk": ("hvae", ["n=2", "mode=interpolate", "frames=3"]),
    "hvae-traverse": ("hvae", ["n=2", "mode=traverse"]),
    "hvae-classes": ("hvae-conditional", ["n=10"]),
    "vqvae": ("vqvae", ["n=3"]),
    "vqvae-folder": ("vqvae-folder", ["n=3", "format=npz"]),
    "transformer": ("transformer", ["n=3", "max_tokens=12"]),
    "transformer-prompt": ("transformer", ["n=2", "prompt=the ", "max_tokens=9", "top_k=5", "temperature=0.8"]),
    "transformer-file": ("transformer", ["prompt_file=prompts.txt", "n=2", "max_tokens=9", "top_p=0.9"]),
    "transformer-beam": ("transformer", ["n=2", "prompt=the ", "beam=3", "max_tokens=9", "length_penalty=0.5"]),
    "transformer-greedy": ("transformer-pydocs", ["n=1", "prompt=The ", "temperature=0", "repetition_penalty=1.3"]),
    "transformer-lines": ("transformer-lines", ["n=3", "min_p=0.1"]),
    "transformer-lora": ("transformer-lora", ["n=2", "max_tokens=9"]),
    "bert": ("bert", ["n=3"]),
    "bert-prompt": ("bert", ["n=2", "prompt=the ", "sampler=gibbs", "max_tokens=9"]),
    "bert-infill": ("bert", ["n=3", "mode=infill"]),
    "bert-gaps": ("bert", ["n=3", "mode=infill", "prompt=the ____ of", "sampler=confidence", "steps=3"]),
    "bert-mlm": ("bert-mlm", ["n=2", "mode=infill", "prompt=a ____ dog", "gap=3", "sampler=gibbs"]),
    "seq2seq": ("seq2seq", ["n=3"]),
    "seq2seq-prompt": ("seq2seq", ["n=2", "prompt=the red cat.", "temperature=1"]),
    "seq2seq-file": ("seq2seq", ["prompt_file=prompts.txt", "beam=3"]),
    "vae_text": ("vae_text", ["n=3", "latent_temperature=0.5"]),
    "vae_text-prompt": ("vae_text", ["n=2", "prompt=the "]),
    "vae_text-gmm": ("vae_text", ["n=2", "prior=gmm"]),
    "vae_text-reconstruct": ("vae_text", ["n=3", "mode=reconstruct"]),
    "vae_text-own": ("vae_text", ["n=1", "mode=reconstruct", "prompt=the red cat."]),
    "vae_text-walk": ("vae_text", ["n=2", "mode=interpolate", "frames=4"]),
    "vae_text-way": ("vae_text", ["n=1", "mode=interpolate", "prompt=a dog.", "to=the moon."]),
}

#: The run and the further words of each `aigc embed`.
EMBEDDINGS: dict[str, tuple[str, list[str]]] = {
    run: (run, ["prompts.txt", "neighbours=1"]) for run in ("transformer", "bert", "bert-mlm", "vae_text")
}

FEATURES = "fd,kd,cs,fd_infinity,prdc,vendi,memorization"
NEW, OLD = "fake=a.npz", "real=b.npz"
INCEPTION = ["extractor=inception", "weights=inception.pth"]
SIDES = ["fake=large-a", "real=large-b"]
#: The words of each `aigc eval`, in this order: later ones read what earlier ones wrote.
EVALS: dict[str, list[str]] = {
    "gan": ["run=golden/gan", "--metric", FEATURES, "n=160"],
    "gan-usual": ["run=golden/gan"],
    "gan-seeds": ["run=golden/gan", "--metric", "fd,prdc,vendi", "n=40", "seeds=2", "seed=5", "truncation=0.5"],
    "gan-split": ["run=golden/gan", "--metric", "fd,kd", "n=40", "split=test", "step=3", "metric.kd.subset_size=20"],
    "gan-unsplit": ["run=golden/gan", "--metric", "fd", "n=40", "data.val_fraction=0"],
    "gan-reference": ["run=golden/gan", "--metric", "fd", "n=40", "reference=golden/gan-hinge"],
    "gan-classes": ["run=golden/gan-conditional", "--metric", "class_accuracy,fd", "n=40"],
    "gan-one-class": ["run=golden/gan-conditional", "--metric", "class_accuracy,prdc", "n=20", "class=7,0"],
    "gan-files": ["run=golden/gan", "--metric", "fd", "n=40", OLD, "held_out=c.npz"],
    "gan-folder": ["run=golden/gan-folder", "--metric", "fd,prdc", "n=20"],
    "vae": ["run=golden/vae", "--metric", "fd,reconstruction,likelihood,active_units", "n=40"],
    "vae-tight": ["run=golden/vae", "--metric", "likelihood", "n=20", "metric.likelihood.samples=5", "split=val"],
    "vae-reconstructions": ["run=golden/vae", "--metric", "fd,memorization", "n=40", "mode=reconstruct"],
    "vae-conditional": ["run=golden/vae-mlp", "--metric", "likelihood,active_units,reconstruction", "n=20"],
    "vae-mixture": ["run=golden/vae-resnet", "--metric", "likelihood,active_units", "n=20"],
    "vae-parquet": ["run=golden/vae-parquet", "--metric", "fd,reconstruction,likelihood"],
    "vae-large": ["run=golden/default-vae", "--metric", "reconstruction", "n=20"],
    "hvae": ["run=golden/hvae", "--metric", "fd,reconstruction,likelihood", "n=20", "temperature=0.5"],
    "vqvae": ["run=golden/vqvae", "--metric", "reconstruction", "n=20"],
    "vqvae-features": ["run=golden/vqvae", "--metric", "fd,prdc", "n=20", "mode=reconstruct"],
    "transformer": ["run=golden/transformer", "n=8"],
    "transformer-continued": ["run=golden/transformer", "--metric", "continuation,bleu,chrf,rouge,infill", "n=6"],
    "transformer-seeds": ["run=golden/transformer", "--metric", "distinct,repetition", "n=5", "seeds=2", "top_k=5",
                          "metric.repetition.n=2"],
    "transformer-pydocs": ["run=golden/transformer-pydocs", "--metric", "likelihood", "n=20"],
    "transformer-lines": ["run=golden/transformer-lines", "--metric", "likelihood,copied", "n=6", "split=val"],
    "transformer-elsewhere": ["run=golden/transformer", "--metric", "likelihood", "data=text", "data.root=real.txt",
                              "data.context=16", "data.val_fraction=0", "data.test_fraction=0.5"],
    "bert": ["run=golden/bert", "--metric", "likelihood,infill,continuation", "n=5"],
    "bert-mlm": ["run=golden/bert-mlm", "--metric", "likelihood,infill", "n=5", "metric.infill.seed=1"],
    "seq2seq": ["run=golden/seq2seq", "n=6"],
    "seq2seq-drawn": ["run=golden/seq2seq", "--metric", "bleu,chrf,rouge", "temperature=1", "seeds=2", "n=6"],
    "vae_text": ["run=golden/vae_text", "n=6"],
    "vae_text-reconstructions": ["run=golden/vae_text", "--metric", "bleu,distinct", "mode=reconstruct", "n=6"],
    "files-images": [NEW, OLD, "held_out=c.npz", "data=digits", "data.size=8", "--metric", FEATURES],
    "files-alone": [NEW, "data=digits", "data.size=8", "--metric", "vendi,cs"],
    "files-inception": [*SIDES, *INCEPTION, "--metric", "fid,kid,is,prdc", "metric.kid.subset_size=6"],
    "files-clean": [*SIDES, *INCEPTION, "resize=clean", "--metric", "fid"],
    "files-resnet": [*SIDES, "extractor=torchvision", "model=resnet18", "weights=resnet18.pth", "--metric", "fd,vendi"],
    "files-half": [*SIDES, "extractor=torchvision", "model=resnet18", "weights=resnet18.pth", "dtype=bfloat16",
                   "--metric", "fd"],
    "files-text": ["fake=fake.txt", "real=real.txt", "--metric",
                   "bleu,chrf,rouge,distinct,self_bleu,repetition,copied"],
    "files-text-some": ["fake=fake.txt", "real=real.txt", "--metric", "bleu,rouge,self_bleu", "n=20",
                        "metric.rouge.stemmer=true", "metric.bleu.tokenize=char", "metric.self_bleu.items=10"],
    "stats": ["stats", "data=digits", "data.size=8", "--metric", "fd", "out=digits.npz"],
    "stats-files": ["stats", OLD, "data=digits", "data.size=8", "--metric", "fd", "out=b-stats.npz"],
    "stats-real": ["run=golden/gan", "real=digits.npz", "--metric", "fd", "n=40"],
    "stats-both": ["fake=b-stats.npz", "real=digits.npz", "data=digits", "data.size=8", "--metric", "fd"],
    "compare": ["compare", "run=golden/gan,golden/gan-hinge", "--metric", "fd,prdc", "n=40", "seeds=2"],
    "compare-vaes": ["compare", "run=golden/vae,golden/vae-iwae", "--metric", "kd,likelihood,reconstruction", "n=20"],
    "compare-text": ["compare", "run=golden/transformer,golden/bert", "--metric", "likelihood,distinct",
                     "n=6"],
}  # fmt: skip

#: Runs whose splits are told apart by their fingerprints, with a metric that tells them.
SPLITS: dict[str, str] = {
    **dict.fromkeys(("vae", "vae-parquet", "vae-zip", "vae-splits", "vqvae-folder", "cifar10"), "reconstruction"),
    **dict.fromkeys(
        ("transformer", "transformer-pydocs", "transformer-lines", "transformer-rows", "transformer-splits", "seq2seq",
         "seq2seq-fields", "vae_text-fields", "shakespeare", "multi30k", "multi30k-de"), "likelihood"
    ),
}  # fmt: skip
