//! `dml predict` with a model in a file: no cluster is asked, and nothing is kept. The table is read as a whole.

use std::{
    fs,
    io::{Read, stdin},
    path::Path,
};

use dml_compute::{Model, Registry, table};
use dml_net::Problem;
use serde_json::json;

use crate::{args::Predict, console::Console, console::counted, failure::Failure, model::save};

/// What tables begin with that only a cluster reads.
const PACKED: [(&[u8], &str); 3] = [
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"PAR1", "Parquet"),
];

/// Whether a text names a model in a file.
pub(crate) fn is_file(model: &str) -> bool {
    model.ends_with(".dml") && Path::new(model).is_file()
}

pub(crate) fn run(console: &Console, options: &Predict) -> Result<(), Failure> {
    if options.name.is_some() {
        return Err(Failure::usage("a prediction with a model in a file is not kept, and has no --name"));
    }
    let path = Path::new(&options.model);
    let bytes = fs::read(path).map_err(|error| Failure::file(path, &error))?;
    let model = Model::from_bytes(&bytes).map_err(|error| {
        Failure::input(format!("{}: {error}", path.display()))
            .hint("pull or download it again, with a dml of this version")
    })?;
    let bytes = read(&options.table)?;
    let inputs = model.inputs();
    let limits = table::Limits::default();
    let rows = if table::is_arrow(&bytes) {
        table::read_arrow(&bytes, &limits).and_then(|rows| table::cast(&rows, &inputs))
    } else {
        table::read_rows_as(&bytes, &limits, &inputs)
    };
    let rows = rows.map_err(Problem::from)?;
    let predicted = model.predict(&Registry::default(), &rows).map_err(Problem::from)?;
    let mut csv = Vec::new();
    match &options.output {
        Some(output) => {
            table::write_csv(&predicted, true, &mut csv);
            save(output, &csv)?;
        }
        None if !console.json => {
            table::write_csv(&predicted, true, &mut csv);
            console.bytes(&csv)?;
        }
        None => {}
    }
    if console.json {
        let mut document = json!({ "model": options.model, "target": model.target, "rows": rows.num_rows() });
        match &options.output {
            Some(output) => document["file"] = json!(output),
            None => document["results"] = json!(table::to_json_rows(&predicted)),
        }
        console.show(&document, String::new)?;
    }
    let to = options.output.as_ref().map_or(String::new(), |path| format!(", see {}", path.display()));
    let counted = counted(rows.num_rows() as u64, "row");
    console.say(&format!("predicted {} for {counted} with {}{to}", model.target, options.model));
    Ok(())
}

/// The table that was named.
fn read(name: &str) -> Result<Vec<u8>, Failure> {
    let path = Path::new(name);
    let mut bytes = Vec::new();
    if name == "-" {
        stdin().read_to_end(&mut bytes).map_err(|error| Failure::file(path, &error))?;
    } else {
        bytes = fs::read(path).map_err(|error| {
            Failure::file(path, &error)
                .hint("a model in a file predicts a table in a file; one in a cluster predicts datasets, too")
        })?;
    }
    match PACKED.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, form)) => {
            Err(Failure::input(format!("{name} is {form}: a model in a file reads CSV and Arrow"))
                .hint("unpack it first, or predict with a model in a cluster"))
        }
        None => Ok(bytes),
    }
}
