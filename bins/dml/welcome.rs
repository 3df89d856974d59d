//! `dml` alone: what one can do now.

use serde_json::json;

use crate::{connect::Place, console::Console, failure::Failure};

pub(crate) fn show(console: &Console, place: &Place) -> Result<(), Failure> {
    let (dml, version) = (place.dml(), env!("CARGO_PKG_VERSION"));
    let data = place.is_embedded() && place.data.exists();
    console.show(&json!({ "version": version, "data": data.then_some(&place.data) }), || {
        let there = match (&place.cluster, data) {
            (Some(addresses), _) => format!("Working on the cluster at {addresses}."),
            (None, true) => format!("Working in this process, on the data in {}.", place.data.display()),
            (None, false) => format!("Working in this process; nothing is in {} yet.", place.data.display()),
        };
        let first = [
            ("train TABLE.csv --target COLUMN", "train models on a table, see which is best"),
            ("predict MODEL TABLE.csv", "predict with one of them"),
            ("tune TABLE.csv --target COLUMN", "search for better parameters"),
            ("model download MODEL", "take it away"),
        ];
        let look = [
            ("dataset ls", "tables"),
            ("training ls", "trainings, with the best model of each"),
            ("study ls", "searches, with the best trial of each"),
            ("model kinds", "what can be trained, with all parameters"),
        ];
        let serve = [("up", "serve the REST API"), ("--help", "everything else")];
        let all = first.iter().chain(&look).chain(&serve);
        let width = all.map(|(command, _)| command.chars().count()).max().unwrap_or(0);
        let line = |(command, what): &(&str, &str)| format!("  {dml} {command:width$}   {what}");
        let lines = |commands: &[(&str, &str)]| commands.iter().map(line).collect::<Vec<_>>().join("\n");
        let (first, look, serve) = (lines(&first), lines(&look), lines(&serve));
        format!("DML {version} trains models on tables. {there}\n\n{first}\n\n{look}\n\n{serve}")
    })
}
