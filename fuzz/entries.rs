//! What reads bytes from strangers. No bytes may make it panic, take for ever, or take more memory than they should.

use dml_compute::{
    Model, Registry,
    table::{ArrowTable, Importer, Limits, decode, encode, from_json_rows, read_rows, write_csv},
};
use dml_core::{Digest, record::Record};

/// A CSV file. What comes of it is written, and read as the same rows.
pub(crate) fn csv(bytes: &[u8]) {
    let mut importer =
        Importer::new(tempfile::tempfile().expect("there is room for a file"), Limits::default());
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let pushed = importer.push(first).and_then(|()| importer.push(second));
    let Ok(mut table) = pushed.and_then(|()| importer.finish()) else { return };
    let chunks: Vec<_> = table.by_ref().map(|chunk| chunk.expect("its types are known")).collect();
    assert_eq!(chunks.iter().map(|chunk| chunk.num_rows() as u64).sum::<u64>(), table.rows());
    assert_eq!(table.columns().len(), table.types().len());
    let mut text = Vec::new();
    write_csv(&chunks[0], true, &mut text);
    let again = read_rows(&text, &Limits::default()).expect("what was written is read");
    assert_eq!(again.num_rows(), chunks[0].num_rows());
}

/// An Arrow file or stream. What comes of it is a chunk that is read again.
pub(crate) fn arrow(bytes: &[u8]) {
    let Ok(mut table) = ArrowTable::new(bytes, Limits::default()) else { return };
    for chunk in table.by_ref().take(4) {
        let Ok(chunk) = chunk else { return };
        assert_eq!(decode(&encode(&chunk)).expect("what was written is read"), chunk);
    }
    assert_eq!(table.columns().len(), table.types().len());
}

/// A chunk of a stored table.
pub(crate) fn chunk(bytes: &[u8]) {
    if let Ok(rows) = decode(bytes) {
        write_csv(&rows, true, &mut Vec::new());
    }
}

/// A model; its seal is put right, so that what is behind it is reached. It predicts, or says why not.
pub(crate) fn model(bytes: &[u8]) {
    let _ = Model::from_bytes(bytes);
    let mut sealed = bytes[..bytes.len().saturating_sub(32)].to_vec();
    let seal = Digest::of(&sealed);
    sealed.extend(seal.as_bytes());
    let Ok(model) = Model::from_bytes(&sealed) else { return };
    let registry = Registry::default();
    let _ = model.to_json(&registry);
    let inputs = model.inputs();
    let Some((name, _)) = inputs.first() else { return };
    let row = [(name.clone(), serde_json::Value::Null)].into_iter().collect();
    if let Ok(rows) = from_json_rows(&[row], &inputs) {
        let _ = model.predict(&registry, &rows);
    }
}

/// A record, as it is stored and sent. What is read is written as the same.
pub(crate) fn record(bytes: &[u8]) {
    if let Ok(record) = Record::from_bytes(bytes) {
        assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
    }
}
