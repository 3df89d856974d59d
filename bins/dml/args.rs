//! The command line.

mod study;
mod trust;

use std::{convert::Infallible, net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use dml_core::{Method, Task};
use dml_net::{
    identity::{NotASecret, Secret},
    view::NewModel,
};

use program::node::Origins;

pub(crate) use self::study::{StudyCommand, Tune};
pub(crate) use self::trust::{CertifyRole, ClusterCommand, RoleArg, ScopeArg, TokenCommand};
use crate::model_spec;

/// Train models on a table, predict with them, take them away.
///
/// Without --cluster everything runs in this process, and the data is kept in ./.dml.
#[derive(Debug, Parser)]
#[command(name = "dml", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Workers of a running cluster; the next is tried when one does not answer
    #[arg(long, global = true, value_name = "URL,…", env = "DML_CLUSTER", hide_env_values = true, help_heading = GLOBAL)]
    pub(crate) cluster: Option<String>,
    /// The certificate of a cluster that is asked over TLS: ca.pem
    #[arg(long, global = true, value_name = "FILE", env = "DML_CA", hide_env_values = true, help_heading = GLOBAL)]
    pub(crate) ca: Option<PathBuf>,
    /// Who you are: a certificate with its key, such as admin.pem; for `up`, the cluster's key
    #[arg(long, global = true, value_name = "FILE", env = "DML_IDENTITY", hide_env_values = true, help_heading = GLOBAL)]
    pub(crate) identity: Option<PathBuf>,
    /// The token by which the cluster knows you; in DML_TOKEN others on this machine do not see it
    #[arg(long, global = true, value_name = "TOKEN", env = "DML_TOKEN", hide_env_values = true, help_heading = GLOBAL, value_parser = secret)]
    pub(crate) token: Option<Result<Secret, NotASecret>>,
    /// Where the cluster in this process keeps its data
    #[arg(long, global = true, value_name = "DIR", env = "DML_DATA", hide_env_values = true, default_value = "./.dml", help_heading = GLOBAL)]
    pub(crate) data: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long, global = true, env = "DML_JSON", hide_env_values = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// Say more on stderr: -v what happens, -vv and -vvv details
    #[arg(short, long, global = true, action = ArgAction::Count, env = "DML_VERBOSE", hide_env_values = true, help_heading = GLOBAL)]
    pub(crate) verbose: u8,
    /// A TOML file with settings, named like the options; the command line and DML_… variables win over it
    #[arg(long, global = true, value_name = "FILE", env = "DML_CONFIG", hide_env_values = true, help_heading = GLOBAL)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Reads a token. A wrong one is told of later, without its text, which clap would show.
fn secret(text: &str) -> Result<Result<Secret, NotASecret>, Infallible> {
    Ok(text.parse())
}

const GLOBAL: &str = "Global options";

const EXAMPLES: &str = "Examples:
  dml train penguins.csv --target species       train a set of models, see which is best
  dml predict penguins-species new.csv          predict with the best of them
  dml tune penguins.csv --target species        search for better parameters
  dml model kinds                               what can be trained
  dml up                                        serve the REST API until ctrl-c

Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 no such thing; 4 the input is at fault; 5 no cluster answers, or no object store.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train models on a table and compare them
    #[command(after_help = "Examples:
  dml train penguins.csv --target species
  dml train houses.csv --target price --folds 5 --seed 7
  dml train houses.csv --target price --model ridge:alpha=2.5 --model random_forest:n_estimators=300
  cat table.csv | dml train - --target y --name mine

`dml model kinds` shows every model with its parameters.")]
    Train(Train),
    /// Search for the parameters with which models are best, and keep the best
    #[command(after_help = "Examples:
  dml tune penguins.csv --target species
  dml tune houses.csv --target price --kind ridge --param alpha=log:0.001..100 --trials 30
  dml tune houses.csv --target price --param learning_rate=log:0.01..0.3 --param max_leaves=15,31,63 --folds 5
  dml tune houses.csv --target price --strategy halving --trials 64
  dml tune houses.csv --target price --kind ridge --kind lasso --param ridge.alpha=log:0.01..10

The training of the best has the study's name: `dml predict` takes it at once.")]
    Tune(Tune),
    /// Predict with a model
    #[command(after_help = "Examples:
  dml predict penguins-species new.csv                 with the best model; results on stdout
  dml predict penguins-species/ridge new.csv -o out.csv
  cat new.csv | dml predict penguins-species - | head
  dml predict penguins-species-ridge.dml new.csv       with a model in a file, without a cluster

With --json, stdout has the prediction as JSON, with the rows under `results` unless -o sends them to a file.")]
    Predict(Predict),
    /// Tables: add, list, look at, remove
    Dataset {
        #[command(subcommand)]
        command: DatasetCommand,
    },
    /// Trainings: list, look at, watch, cancel, remove
    Training {
        #[command(subcommand)]
        command: TrainingCommand,
    },
    /// Studies, which `dml tune` makes: list, look at, watch, cancel, remove
    Study {
        #[command(subcommand)]
        command: StudyCommand,
    },
    /// Models: list, look at, download, push to an object store and pull from it
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Batch predictions: list, look at, fetch results
    Prediction {
        #[command(subcommand)]
        command: PredictionCommand,
    },
    /// The nodes of the cluster
    #[command(after_help = "Examples:
  dml --cluster http://127.0.0.1:7300 cluster
  dml cluster init --out secrets                   certificates for a cluster that answers its own alone")]
    Cluster {
        #[command(subcommand)]
        command: Option<ClusterCommand>,
    },
    /// What the cluster is at, as it moves: nodes, trainings, units of work a second
    #[command(after_help = "Examples:
  dml --cluster http://127.0.0.1:7300 top             until q or ctrl-c
  dml --cluster http://127.0.0.1:7300 top --once      one frame; also where the output is no terminal")]
    Top(Top),
    /// Tokens, by which users of a cluster with certificates are known: add, list, remove
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Where something is, who owns it, who works on it, and why it waits
    #[command(
        after_help = "Examples:\n  dml explain penguins-species\n  dml --cluster http://127.0.0.1:7300 explain 973329b735d3"
    )]
    Explain {
        /// The name or id of a dataset, training, study, model or prediction
        #[arg(value_name = "NAME-or-ID")]
        id: String,
    },
    /// Serve a cluster from this process until ctrl-c
    #[command(after_help = "Examples:
  dml up
  dml up --workers 2 --listen 127.0.0.1:8080
  dml --cluster http://127.0.0.1:7300 train penguins.csv --target species    (in another terminal)")]
    Up(Up),
    /// Take all tables, trainings, studies and models into a directory of plain files
    #[command(after_help = "Examples:
  dml --cluster http://127.0.0.1:7300 snapshot backup
  dml --data old snapshot backup && dml --data new restore backup

A second snapshot into the same directory fetches what is new.")]
    Snapshot {
        /// Where to; made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Bring back what a snapshot holds, into this or another cluster
    #[command(after_help = "Example:
  dml --cluster http://127.0.0.1:7300 restore backup

What is there already stays as it is. Models are trained again, to the same bytes, which is checked.")]
    Restore {
        /// The directory of the snapshot
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// A script that completes commands in your shell
    #[command(
        after_help = "Example:\n  dml completions bash > ~/.local/share/bash-completion/completions/dml"
    )]
    Completions {
        /// Your shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command into a directory
    #[command(after_help = "Example:\n  dml man ~/.local/share/man/man1 && man dml-train")]
    Man {
        /// Where to; made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

impl Command {
    /// Whether it stores something, or needs what is stored.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Train(_)
            | Self::Tune(_)
            | Self::Predict(_)
            | Self::Dataset { command: DatasetCommand::Add(_) }
            | Self::Restore { .. } => true,
            Self::Dataset { .. }
            | Self::Training { .. }
            | Self::Study { .. }
            | Self::Model { .. }
            | Self::Prediction { .. }
            | Self::Cluster { .. }
            | Self::Token { .. }
            | Self::Explain { .. }
            | Self::Snapshot { .. }
            | Self::Top(_)
            | Self::Up(_)
            | Self::Completions { .. }
            | Self::Man { .. } => false,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Train {
    /// A CSV file (- for stdin), or the name or id of a dataset
    #[arg(value_name = "FILE-or-DATASET")]
    pub(crate) table: String,
    /// The column to predict
    #[arg(short, long, value_name = "COLUMN")]
    pub(crate) target: String,
    /// What to do [default: what the target's type suggests]
    #[arg(long, value_enum)]
    pub(crate) task: Option<TaskWord>,
    /// A model to train, with parameters; may be repeated [default: a set that suits the task]
    #[arg(short, long = "model", value_name = "KIND[:PARAM=VALUE,…]", value_parser = model_spec::parse)]
    pub(crate) models: Vec<NewModel>,
    /// Let the models predict together as well, as an ensemble
    #[arg(long, value_enum, value_name = "METHOD", conflicts_with = "folds")]
    pub(crate) ensemble: Option<MethodWord>,
    /// The columns to predict from [default: all others]
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) features: Vec<String>,
    /// The part of the rows that models are judged by [default: 0.2]
    #[arg(long, value_name = "PART", conflicts_with = "folds")]
    pub(crate) holdout: Option<f64>,
    /// Judge models by cross-validation with so many folds
    #[arg(long, value_name = "N")]
    pub(crate) folds: Option<u32>,
    /// The source of everything random: the same seed gives the same models [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// On a busy cluster, a greater one is served first [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// What to call the training [default: DATASET-COLUMN]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// The word for how members of an ensemble are brought together.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum MethodWord {
    /// The mean; each model learns from its own half of the rows
    Bagging,
    /// The class that most models name
    Voting,
    /// The mean
    Averaging,
    /// A mean with weights that are learned on half of the held-out rows
    Stacking,
}

impl From<MethodWord> for Method {
    fn from(word: MethodWord) -> Self {
        match word {
            MethodWord::Bagging => Self::Bagging,
            MethodWord::Voting => Self::Voting,
            MethodWord::Averaging => Self::Averaging,
            MethodWord::Stacking => Self::Stacking,
        }
    }
}

/// The word for a task.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TaskWord {
    /// The target is a number
    Regression,
    /// The target is one of several classes
    Classification,
}

impl From<TaskWord> for Task {
    fn from(word: TaskWord) -> Self {
        match word {
            TaskWord::Regression => Self::Regression,
            TaskWord::Classification => Self::Classification,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Predict {
    /// A model, or a training: its best model; or a file, FILE.dml, that was downloaded or pulled
    #[arg(value_name = "MODEL-or-TRAINING")]
    pub(crate) model: String,
    /// A CSV file (- for stdin), or the name or id of a dataset
    #[arg(value_name = "FILE-or-DATASET")]
    pub(crate) table: String,
    /// Write the results to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What to call the prediction [default: DATASET-MODEL]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// Which part of a list.
#[derive(Debug, clap::Args)]
pub(crate) struct Page {
    /// How many to show, newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
    /// Where to go on: `next_cursor` of the page before
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatasetCommand {
    /// Upload a table
    #[command(after_help = "Examples:
  dml dataset add penguins.csv
  curl -s https://example.org/t.csv | dml dataset add - --name t")]
    Add(Add),
    /// List datasets
    #[command(visible_alias = "list")]
    Ls(Page),
    /// Columns, statistics and first rows of a dataset
    #[command(after_help = "Example:\n  dml dataset show penguins")]
    Show {
        /// Its name or id
        dataset: String,
    },
    /// Some rows of a dataset
    #[command(after_help = "Example:\n  dml dataset rows penguins --offset 100 --limit 10")]
    Rows {
        /// Its name or id
        dataset: String,
        /// How many rows to skip
        #[arg(long, value_name = "N", default_value_t = 0)]
        offset: u64,
        /// How many rows to show
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u64,
    },
    /// Remove a dataset
    #[command(after_help = "Example:\n  dml dataset rm penguins")]
    Rm {
        /// Its name or id
        dataset: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// A CSV file; - for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// What to call it [default: the file's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrainingCommand {
    /// List trainings
    #[command(visible_alias = "list")]
    Ls(Page),
    /// The leaderboard of a training
    #[command(after_help = "Example:\n  dml training show penguins-species")]
    Show {
        /// Its name or id
        training: String,
    },
    /// Follow a training until it ends
    #[command(after_help = "Example:\n  dml training watch penguins-species")]
    Watch {
        /// Its name or id
        training: String,
    },
    /// Stop a training; what is finished stays. Training the same again goes on from there
    #[command(after_help = "Example:\n  dml training cancel penguins-species")]
    Cancel {
        /// Its name or id
        training: String,
    },
    /// Remove a training with its models
    #[command(after_help = "Example:\n  dml training rm penguins-species")]
    Rm {
        /// Its name or id
        training: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List models
    #[command(visible_alias = "list")]
    Ls(Page),
    /// Metrics, parameters, and which columns matter
    #[command(after_help = "Examples:
  dml model show penguins-species/random_forest
  dml model show penguins-species            the best model of a training
  dml model show penguins-species --plot penguins.svg")]
    Show {
        /// Its name or id, or that of a training: its best model
        model: String,
        /// Draw how good it is as SVG: ROC curves and confusion matrix, or predictions and residuals, and learning curves;
        /// - for stdout
        #[arg(long, value_name = "FILE.svg")]
        plot: Option<PathBuf>,
    },
    /// Save a model to a file
    #[command(after_help = "Examples:
  dml model download penguins-species
  dml model download penguins-species --format onnx
  dml model download penguins-species/ridge --format json -o ridge.json")]
    Download {
        /// Its name or id, or that of a training: its best model
        model: String,
        /// What it is saved as
        #[arg(long, value_enum, default_value = "native")]
        format: Format,
        /// Where; - for stdout [default: a file named after the model]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put a model into an S3-compatible object store: what predicts, an ONNX file and a card
    #[command(after_help = "Examples:
  dml model push penguins-species s3://models            the best model of a training
  dml model push penguins-species s3://models/birds --all
  AWS_ENDPOINT_URL=http://127.0.0.1:9000 dml model push penguins-species/ridge s3://models

AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say who you are, AWS_ENDPOINT_URL where the store is if
it is not Amazon's; AWS_SESSION_TOKEN and AWS_REGION are heeded. What is there is not sent again.")]
    Push {
        /// Its name or id, or that of a training or study: its best model
        #[arg(value_name = "MODEL-or-TRAINING")]
        what: String,
        /// Where to; a directory for the training is made below
        #[arg(value_name = "s3://BUCKET/PREFIX")]
        to: String,
        /// Push every finished model of the training
        #[arg(long)]
        all: bool,
    },
    /// Bring a model back from an object store as a file, if it is what was pushed
    #[command(after_help = "Examples:
  dml model pull s3://models/penguins-species                 the best model of a training
  dml model pull s3://models/penguins-species/ridge -o ridge.dml

The environment says where the store is and who you are, as for `dml model push`.")]
    Pull {
        /// A training below a prefix, or one of its models
        #[arg(value_name = "s3://BUCKET/PREFIX/TRAINING")]
        from: String,
        /// Where; - for stdout [default: a file named after the model]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Every kind of model with its parameters
    #[command(after_help = "Examples:\n  dml model kinds\n  dml model kinds random_forest")]
    Kinds {
        /// Show this kind alone
        kind: Option<String>,
    },
}

/// What a model is saved as.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// The bytes that DML itself predicts with
    Native,
    /// For other programs: predicts from a table's columns as they are, without DML
    Onnx,
    /// Everything the model consists of, to be read
    Json,
}

impl Format {
    /// The word for it in the API, and the end of its files' names.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Native => ("native", "dml"),
            Self::Onnx => ("onnx", "onnx"),
            Self::Json => ("json", "json"),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PredictionCommand {
    /// List batch predictions
    #[command(visible_alias = "list")]
    Ls(Page),
    /// How a prediction stands
    #[command(after_help = "Example:\n  dml prediction show new-penguins-species")]
    Show {
        /// Its name or id
        prediction: String,
    },
    /// The predicted rows as CSV
    #[command(after_help = "Example:\n  dml prediction results new-penguins-species -o results.csv")]
    Results {
        /// Its name or id
        prediction: String,
        /// Write them to this file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// Print one frame, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// How many seconds to wait between frames
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) every: u16,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// How many db nodes; with three or more, any two may fail
    #[arg(long, value_name = "N", env = "DML_DBS", hide_env_values = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) dbs: u16,
    /// How many workers
    #[arg(long, value_name = "N", env = "DML_WORKERS", hide_env_values = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,
    /// How many pieces of work each worker computes at a time [default: all cores, shared out]
    #[arg(long, value_name = "N", env = "DML_SLOTS", hide_env_values = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) slots: Option<u16>,
    /// Where to listen
    #[arg(
        long,
        value_name = "ADDR",
        env = "DML_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:7300"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) origins: Origins,
    /// Allow --listen to be reachable from other machines without --identity
    #[arg(long, env = "DML_INSECURE", hide_env_values = true)]
    pub(crate) insecure: bool,
}
