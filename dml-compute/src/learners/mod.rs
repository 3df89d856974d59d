//! The kinds of models that come with DML: one learner a file.
