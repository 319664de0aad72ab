"""Presets with the name of a publication have its numbers.

The numbers are written down here once more, from the official scripts, so that
a change of a default does not change a preset unseen.
"""

import dataclasses

import numpy as np
import pytest

from nao_jax import settings
from nao_jax.errors import UserError
from nao_jax.networks.mobile_config import MobileConfig
from nao_jax.tasks import image_presets, text_presets
from nao_jax.tasks.image_finals import ImageFinalistConfig

CNN, RNN = image_presets.PRESETS, text_presets.PRESETS
OFFICIAL = {
  "cifar10": {
    "evaluator": "shared",
    "sampling": "uniform",
    "network": {
      "cells_per_stage": 3, "channels": 20, "nodes": 5, "auxiliary": False,
      "dropout": 0.0, "ops": "small", "stem": "cifar",
    },
    "train": {
      "epochs": 150, "batch": 64, "drop_path_keep": 0.9, "label_smoothing": 0.0,
    },
    "sgd": {
      "schedule": "cosine", "learning_rate": 0.025, "end_learning_rate": 0.001,
      "momentum": 0.9, "nesterov": False, "weight_decay": 3e-4, "clip": 5.0,
    },
    "augment": {"padding": 4, "flip": True, "cutout": 0},
    "search": {
      "pool_size": 600, "rounds": 4, "new_per_round": 300,
      "random_per_round": 0, "extend": False,
    },
    "nao": {"top_k": 100, "step_size": 1, "max_step_size": 51, "held_out": 0},
    "controller": {
      "embedding": 48, "hidden": 96, "mlp_layers": 3, "mlp_width": 200,
      "mlp_dropout": 0.1, "embedding_dropout": 0.0, "output_dropout": 0.0,
    },
    "fit": {
      "epochs": 1000, "batch": 100, "learning_rate": 1e-3, "trade_off": 0.8,
      "weight_decay": 1e-4, "clip": 5.0, "swap": True,
    },
  },
  "cifar10_v2": {
    "evaluator": "shared",
    "sampling": "parameters",
    "train_only_new": True,
    "network": {"cells_per_stage": 3, "channels": 20, "auxiliary": False},
    # Four rounds of 50.
    "train": {"epochs": 4 * 50, "batch": 64},
    "sgd": {
      "schedule": "restarts", "period": 50, "period_factor": 1,
      "learning_rate": 0.025, "end_learning_rate": 0.001,
    },
    "search": {
      "pool_size": 1000, "rounds": 3, "new_per_round": 300,
      "random_per_round": 0, "extend": True,
    },
    "nao": {"top_k": 100, "step_size": 1, "max_step_size": 51, "held_out": 0.1},
    "controller": {
      "embedding": 32, "hidden": 64, "mlp_layers": 0, "embedding_dropout": 0.0,
      "output_dropout": 0.0,
    },
    # The data are there ten times.
    "fit": {
      "epochs": 10 * 1000, "batch": 100, "learning_rate": 1e-3,
      "trade_off": 0.8, "weight_decay": 0.0, "clip": 5.0, "swap": True,
    },
  },
  "cifar10_tf": {
    "evaluator": "shared",
    "sampling": "uniform",
    "network": {
      "cells_per_stage": 2, "channels": 20, "nodes": 5, "auxiliary": True,
      "dropout": 1 - 0.9, "ops": "small",
    },
    "train": {
      "epochs": 150, "batch": 160, "drop_path_keep": 1.0,
      "label_smoothing": 0.0, "auxiliary_weight": 0.4,
    },
    "sgd": {
      "schedule": "restarts", "period": 10, "period_factor": 2,
      "learning_rate": 0.05, "end_learning_rate": 0.0005, "momentum": 0.9,
      "nesterov": True, "weight_decay": 2 * 1e-4,
    },
    "augment": {"padding": 4, "flip": True, "cutout": 0},
    "search": {
      "pool_size": 1000, "rounds": 4, "new_per_round": 500,
      "random_per_round": 50, "extend": False,
    },
    "nao": {"top_k": 100, "step_size": 1, "max_step_size": 101, "held_out": 0},
    "controller": {
      "embedding": 48, "hidden": 96, "mlp_layers": 3, "mlp_width": 100,
      "mlp_dropout": 0.0, "embedding_dropout": 0.0, "output_dropout": 0.1,
    },
    "fit": {
      "epochs": 1000, "batch": 100, "learning_rate": 1e-3, "trade_off": 0.8,
      "weight_decay": 1e-4, "clip": 5.0, "swap": True,
    },
  },
  # SemiNAS; all else is ours.
  "seminas_imagenet": {
    "search": {
      "pool_size": 100, "rounds": 3, "new_per_round": 100,
      "random_per_round": 0, "extend": True,
    },
    "semi": {
      "top_k": 100, "step_size": 0.1, "max_step_size": 10, "held_out": 0,
      "unlabelled": 4000, "epochs": 1000, "repeats": 100,
    },
    "controller": {
      "embedding": 32, "hidden": 16, "mlp_layers": 1, "mlp_width": 64,
      "mlp_dropout": 0.1, "embedding_dropout": 0.1, "residual": True,
    },
    "fit": {
      "epochs": 10_000, "batch": 100, "learning_rate": 1e-3, "trade_off": 0.8,
      "weight_decay": 1e-4, "clip": 5.0,
    },
    "finalists": 5,
  },
  "mobile_imagenet": {
    "evaluator": "shared",
    "dataset": "imagenet2012",
    "input": "stream",
    "space": "mobile",
    "mobile": MobileConfig(
      stem_width=32, stem_stride=2, first_width=16,
      places=(4, 4, 4, 4, 4, 1), widths=(24, 40, 80, 96, 192, 320),
      strides=(2, 2, 2, 1, 2, 1), last_width=1280,
      kernels=(3, 3, 5, 5, 7, 7), expansions=(3, 6, 3, 6, 3, 6),
    ),
    "sgd": {
      "schedule": "cosine", "momentum": 0.9, "nesterov": True,
      "weight_decay": 4e-5, "decay_batch_norm": False,
    },
    "search": {
      "pool_size": 100, "rounds": 3, "new_per_round": 100, "extend": True,
    },
    "finalists": 5,
  },
  # What is known of it; all else is CIFAR-10's.
  "imagenet": {
    "evaluator": "shared",
    "dataset": "imagenet2012",
    "input": "stream",
    "sampling": "uniform",
    "network": {
      "cells_per_stage": 3, "channels": 20, "nodes": 5, "auxiliary": False,
      "dropout": 0.0, "ops": "small", "stem": "imagenet",
    },
    "train": {
      "epochs": 150, "batch": 64, "drop_path_keep": 0.9, "label_smoothing": 0.1,
    },
    "sgd": {
      "schedule": "step", "learning_rate": 0.025, "decay": 0.97,
      "momentum": 0.9, "nesterov": False, "weight_decay": 3e-4, "clip": 5.0,
    },
    "stream": {
      "size": 224, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4,
      "hue": 0.2,
    },
    "search": {
      "pool_size": 600, "rounds": 4, "new_per_round": 300,
      "random_per_round": 0, "extend": False,
    },
    "nao": {"top_k": 100, "step_size": 1, "max_step_size": 51, "held_out": 0},
    "controller": {
      "embedding": 48, "hidden": 96, "mlp_layers": 3, "mlp_width": 200,
    },
    "fit": {"epochs": 1000, "batch": 100, "learning_rate": 1e-3},
  },
  "cifar10_scratch": {
    "evaluator": "scratch",
    "encoding": "triples",
    "standardize": True,
    "network": {
      "cells_per_stage": 3, "channels": 32, "nodes": 5, "auxiliary": True,
      "dropout": 0.0, "ops": "large",
    },
    "train": {
      "epochs": 25, "batch": 128, "drop_path_keep": 0.7,
      "auxiliary_weight": 0.4, "label_smoothing": 0.0,
    },
    "sgd": {
      "schedule": "restarts", "period": 100, "learning_rate": 0.024,
      "end_learning_rate": 0.0, "momentum": 0.9, "nesterov": False,
      "weight_decay": 5e-4, "clip": 5.0,
    },
    "augment": {"padding": 4, "flip": True, "cutout": 0},
    "search": {
      "pool_size": 600, "rounds": 3, "new_per_round": 300,
      "random_per_round": 0, "extend": True,
    },
    "nao": {"top_k": 100, "step_size": 10, "max_step_size": 30, "held_out": 0},
    "controller": {
      "embedding": 32, "hidden": 96, "mlp_layers": 0,
      "embedding_dropout": 0.0, "output_dropout": 0.1,
    },
    "fit": {
      "epochs": 1000, "batch": 50, "learning_rate": 1e-3, "trade_off": 0.8,
      "weight_decay": 1e-4, "clip": 5.0, "swap": False,
    },
  },
  "ptb": {
    "evaluator": "shared",
    "network": {
      "nodes": 11, "width": 300, "output_dropout": 0.75,
      "hidden_dropout": 0.25, "input_dropout": 0.75, "embedding_dropout": 0.2,
      "word_dropout": 0.0,
    },
    "train": {
      "epochs": 1000, "batch": 256, "bptt": 35, "learning_rate": 0.25,
      "clip": 10.0, "weight_decay": 5e-7, "slowness": 1e-3,
    },
    "search": {
      "pool_size": 1000, "rounds": 4, "new_per_round": 300,
      "random_per_round": 50, "extend": False,
    },
    "nao": {"top_k": 100, "step_size": 1, "max_step_size": 30, "held_out": 0},
    "controller": {
      "embedding": 48, "hidden": 96, "mlp_layers": 4, "mlp_width": 200,
      "mlp_dropout": 0.0, "embedding_dropout": 0.1, "output_dropout": 0.0,
    },
    "fit": {
      "epochs": 1000, "batch": 100, "learning_rate": 1e-3, "trade_off": 0.8,
      "weight_decay": 1e-4, "clip": 5.0,
    },
  },
  "ptb_scratch": {
    "evaluator": "scratch",
    "averaged": True,
    "network": {
      "nodes": 11, "width": 850, "output_dropout": 0.75,
      "hidden_dropout": 0.25, "input_dropout": 0.75, "embedding_dropout": 0.2,
      "word_dropout": 0.0,
    },
    "train": {
      "epochs": 600, "batch": 64, "bptt": 35, "learning_rate": 20.0,
      "clip": 0.25, "weight_decay": 8e-7, "slowness": 1e-3,
    },
    "search": {
      "pool_size": 600, "rounds": 3, "new_per_round": 300,
      "random_per_round": 0, "extend": True,
    },
    "nao": {"top_k": 100, "step_size": 10, "max_step_size": 30, "held_out": 0},
    "controller": {
      # Two tokens a step are as wide as the official one of 96.
      "embedding": 48, "hidden": 96, "mlp_layers": 3, "mlp_width": 200,
      "mlp_dropout": 0.1, "embedding_dropout": 0.0, "output_dropout": 0.1,
    },
    "fit": {
      "epochs": 1000, "batch": 50, "learning_rate": 1e-3, "trade_off": 0.8,
      "weight_decay": 1e-4, "clip": 5.0,
    },
  },
}  # fmt: skip


def _named(config, official):
  """The settings that stand in `official`."""
  return {
    name: _named(getattr(config, name), value)
    if isinstance(value, dict)
    else getattr(config, name)
    for name, value in official.items()
  }


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_preset_has_the_numbers_of_the_official_script(name):
  config = (CNN | RNN)[name]
  assert config.strategy == ("seminas" if "semi" in OFFICIAL[name] else "nao")
  found = _named(config, OFFICIAL[name])
  for part, official in OFFICIAL[name].items():
    assert found[part] == pytest.approx(official), part


def test_the_defaults_are_official_searches():
  assert image_presets.SearchCnnConfig() == CNN["cifar10"]
  ptb = dataclasses.replace(RNN["ptb"], text=text_presets.SearchRnnConfig.text)
  assert text_presets.SearchRnnConfig() == ptb


def test_every_other_preset_is_ours_and_names_its_strategy():
  ours = {*CNN, *RNN} - {*OFFICIAL}
  assert ours == {
    *("digits", "digits_nasbench201", "digits_scratch", "demo"),
    *("cifar10_nasbench201", "mobile_cifar10"),
  }
  assert {(CNN | RNN)[name].strategy for name in ours} == {"nao_plus"}


@pytest.mark.parametrize("name", {**CNN, **RNN})
def test_the_settings_of_a_preset_fit_together(name):
  settings.validate((CNN | RNN)[name])


def test_the_pool_is_scored_when_the_official_scripts_score_it():
  for name, epochs in {
    "cifar10": [30, 60, 90, 120, 150],
    "cifar10_tf": [30, 60, 90, 120, 150],
    "cifar10_v2": [50, 100, 150, 200],
    "ptb": [200, 400, 600, 800, 1000],
  }.items():
    config = (CNN | RNN)[name]
    rounds = config.search.rounds + 1
    each = config.train.epochs // rounds
    assert [each * (r + 1) for r in range(rounds)] == epochs


def test_the_rate_of_the_search_in_tensorflow_restarts_after_10_30_and_70():
  config = CNN["cifar10_tf"]
  rates = config.sgd.by_epoch(config.train.epochs)
  found = np.array([float(rates(epoch)) for epoch in range(150)])
  tops = np.flatnonzero(np.isclose(found, 0.05))
  assert tops.tolist() == [0, 10, 30, 70]
  # The last period is 80 epochs, of which the last one is near the end.
  assert found[149] == pytest.approx(0.0005, abs=1e-4)


def test_the_rate_of_the_search_from_scratch_hardly_falls():
  config = CNN["cifar10_scratch"]
  assert config.nao.step_sizes.tolist() == [10, 20, 30]
  rates = config.sgd.by_epoch(config.train.epochs)
  assert float(rates(24)) == pytest.approx(0.0208, abs=1e-4)


@pytest.mark.parametrize(
  ("changes", "refused"),
  [
    ({"sgd.schedule": "step", "sgd.end_learning_rate": 0.002}, ""),
    (
      {
        "sgd.schedule": "step",
        "sgd.end_learning_rate": 0.002,
        "finalists": 0,
        "final.cells": 0,
      },
      "`sgd.end_learning_rate=0.002`: acts only with",
    ),
    ({"train.auxiliary_weight": 0.3}, ""),
    (
      {"train.auxiliary_weight": 0.3, "finalists": 0},
      "`train.auxiliary_weight=0.3`: acts only with",
    ),
    (
      {"train.auxiliary_weight": 0.3, "finalist.auxiliary": False},
      "`train.auxiliary_weight=0.3`: acts only with",
    ),
    (
      {
        "train.auxiliary_weight": 0.3,
        "finalists": 0,
        "network.auxiliary": True,
      },
      "",
    ),
  ],
)
def test_settings_of_finalists_act_where_there_are_some(changes, refused):
  preset = CNN["cifar10"]
  config = settings.replace(preset, changes)
  if not refused:
    settings.validate(config, preset)
    return
  with pytest.raises(UserError, match=refused):
    settings.validate(config, preset)


def test_official_finalists_are_the_official_ones():
  for name in ("cifar10", "cifar10_v2"):
    config = CNN[name]
    assert config.finalists == 5
    assert config.finalist == ImageFinalistConfig(
      epochs=10,
      batch=64,
      channels=20,
      cells_per_stage=3,
      drop_path_keep=0.8,
      dropout=0.4,
      auxiliary=True,
    )
    assert config.train.auxiliary_weight == 0.4
    assert (config.sgd.learning_rate, config.sgd.clip) == (0.025, 5)
    assert config.sgd.end_learning_rate == 0.001
  assert RNN["ptb"].finalists == 10
