//! `dml model push` and `dml model pull`: models to an S3-compatible object store and back. Credentials come from the
//! environment, as other S3 tools take them.
//!
//! ```text
//! PREFIX/TRAINING/index.json             the training, and its finished models, best first
//! PREFIX/TRAINING/KIND-ID/model.dml      a model, in DML's own format
//! PREFIX/TRAINING/KIND-ID/model.onnx     the same for other programs
//! PREFIX/TRAINING/KIND-ID/card.json      what it is and how good it is: `dml model show --json`
//! ```
//!
//! TRAINING is a name, KIND the model's name within the training, ID the first twelve digits of its own. The index
//! follows from the training alone, so who pushes it last, or at the same time, writes nothing that another has to know
//! of. It is written after the models: the best of an index is always there.

mod bucket;
mod connector;
mod index;
mod pull;
mod push;
mod refusal;
mod settings;
mod url;

pub(crate) use pull::pull;
pub(crate) use push::push;
