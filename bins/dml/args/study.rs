//! The command line of studies.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use dml_core::Strategy;

use super::{Page, TaskWord};
use crate::space_spec::{self, ParamSpec};

#[derive(Debug, clap::Args)]
pub(crate) struct Tune {
    /// A CSV file (- for stdin), or the name or id of a dataset
    #[arg(value_name = "FILE-or-DATASET")]
    pub(crate) table: String,
    /// The column to predict
    #[arg(short, long, value_name = "COLUMN")]
    pub(crate) target: String,
    /// What to do [default: what the target's type suggests]
    #[arg(long, value_enum)]
    pub(crate) task: Option<TaskWord>,
    /// A kind of model to try; may be repeated [default: gradient_boosting]
    #[arg(short, long = "kind", value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
    /// What to try of a parameter: A..B, log:A..B, a list A,B,C, or one value to fix it; may be repeated
    /// [default: ranges that suit the kind]
    #[arg(short, long = "param", value_name = "[KIND.]NAME=VALUES", value_parser = space_spec::parse)]
    pub(crate) params: Vec<ParamSpec>,
    /// How the next trials are chosen
    #[arg(long, value_enum, default_value = "tpe")]
    pub(crate) strategy: StrategyWord,
    /// How many trials [default: 50; by grid all combinations]
    #[arg(long, value_name = "N")]
    pub(crate) trials: Option<u32>,
    /// What says which trial is best, such as roc_auc or mae [default: accuracy or rmse]
    #[arg(long)]
    pub(crate) metric: Option<String>,
    /// The part of the rows that trials are judged by [default: 0.2]
    #[arg(long, value_name = "PART", conflicts_with = "folds")]
    pub(crate) holdout: Option<f64>,
    /// Judge trials by cross-validation with so many folds
    #[arg(long, value_name = "N")]
    pub(crate) folds: Option<u32>,
    /// How many of the best models are trained to be kept: best, a number, or all
    #[arg(long, value_name = "best|N|all", default_value = "best", value_parser = space_spec::parse_keep)]
    pub(crate) keep: u32,
    /// By tpe: how many trials are chosen at once [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<u32>,
    /// By halving: of how many trials one goes on [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) reduction: Option<u32>,
    /// The columns to predict from [default: all others]
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) features: Vec<String>,
    /// The source of everything random: the same seed gives the same trials [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// On a busy cluster, a greater one is served first [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// What to call the study, and the training of its best [default: DATASET-COLUMN-tuned]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// The word for a strategy.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StrategyWord {
    /// Every combination of the values
    Grid,
    /// Any point
    Random,
    /// Points that share out each range evenly
    LatinHypercube,
    /// Points near good ones, far from bad ones
    Tpe,
    /// Many points with little learning each; the best of them learn on
    Halving,
}

impl From<StrategyWord> for Strategy {
    fn from(word: StrategyWord) -> Self {
        match word {
            StrategyWord::Grid => Self::Grid,
            StrategyWord::Random => Self::Random,
            StrategyWord::LatinHypercube => Self::LatinHypercube,
            StrategyWord::Tpe => Self::Tpe,
            StrategyWord::Halving => Self::Halving,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum StudyCommand {
    /// List studies
    #[command(visible_alias = "list")]
    Ls(Page),
    /// The best trials of a study so far, and which parameters matter
    #[command(after_help = "Examples:
  dml study show penguins-species-tuned
  dml study show penguins-species-tuned --plot trials.svg")]
    Show {
        /// Its name or id
        study: String,
        /// Draw all trials as SVG, each as a line through its parameters to its score; - for stdout
        #[arg(long, value_name = "FILE.svg")]
        plot: Option<PathBuf>,
    },
    /// All trials of a study as a table
    #[command(after_help = "Examples:
  dml study trials penguins-species-tuned -o trials.csv
  dml study trials penguins-species-tuned --json")]
    Trials {
        /// Its name or id
        study: String,
        /// Write the table to this file instead of stdout
        #[arg(short, long, value_name = "FILE.csv")]
        output: Option<PathBuf>,
    },
    /// Follow a study until it ends
    #[command(after_help = "Example:\n  dml study watch penguins-species-tuned")]
    Watch {
        /// Its name or id
        study: String,
    },
    /// Stop a study; what is finished stays. Tuning the same again goes on from there
    #[command(after_help = "Example:\n  dml study cancel penguins-species-tuned")]
    Cancel {
        /// Its name or id
        study: String,
    },
    /// Remove a study; the training of its best stays
    #[command(after_help = "Example:\n  dml study rm penguins-species-tuned")]
    Rm {
        /// Its name or id
        study: String,
    },
}
