//! A graph of ONNX operators in the making: values are named, nodes make values of values, and all of it becomes one
//! file. See <https://github.com/onnx/onnx/blob/main/docs/IR.md> and `onnx.proto` there for the field numbers.
//!
//! Inputs are named as their columns are, which may be any text. All other names are made here and avoid those.

use std::collections::BTreeSet;

use super::proto::Message;

/// The version of the file format: what runtimes since 2022 read.
const IR_VERSION: i64 = 8;
/// The versions of the operators: the standard ones, and those for classical machine learning.
const OPSETS: [(&str, i64); 2] = [("", 17), (ML, 5)];
const ML: &str = "ai.onnx.ml";

/// A value of a [`Graph`]: an input, a constant, or what a node makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(usize);

/// What a tensor holds, with the number that stands for it in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// Bytes without a sign.
    Byte = 2,
    /// 64-bit whole numbers.
    Integer = 7,
    /// Texts.
    Text = 8,
    /// 64-bit floating-point numbers.
    Double = 11,
}

/// A setting of a node.
#[derive(Debug, Clone, Copy)]
pub enum Attribute<'a> {
    /// A whole number.
    Int(i64),
    /// Whole numbers.
    Ints(&'a [i64]),
    /// A text.
    Text(&'a str),
    /// Texts.
    Texts(&'a [&'a str]),
    /// A tensor of one axis with 64-bit numbers.
    Doubles(&'a [f64]),
    /// A tensor of one axis with bytes.
    Bytes(&'a [u8]),
}

/// A graph in the making.
#[derive(Debug, Default)]
pub struct Graph {
    names: Vec<String>,
    taken: BTreeSet<String>,
    inputs: Vec<Message>,
    constants: Vec<Message>,
    nodes: Vec<Message>,
    outputs: Vec<Message>,
}

impl Graph {
    /// A constant of that shape with these 64-bit numbers, row-major; no axes for a single number.
    pub fn doubles(&mut self, shape: &[usize], values: &[f64]) -> Value {
        self.constant(shape, doubles(values))
    }

    /// A constant of that shape with these whole numbers, row-major.
    pub fn integers(&mut self, shape: &[usize], values: &[i64]) -> Value {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(shape, Message::default().int(2, Type::Integer as i64).bytes(9, raw))
    }

    /// A constant of one axis with these texts.
    pub fn texts(&mut self, values: &[String]) -> Value {
        let tensor = Message::default().int(2, Type::Text as i64);
        let tensor = values.iter().fold(tensor, |tensor, text| tensor.bytes(6, text));
        self.constant(&[values.len()], tensor)
    }

    /// What a standard operator makes of these values. `attributes` are by name.
    pub fn node(&mut self, operator: &str, inputs: &[Value], attributes: &[(&str, Attribute)]) -> Value {
        let [value] = self.operator("", operator, inputs, attributes);
        value
    }

    /// The two things that a standard operator makes of these values.
    pub fn pair(
        &mut self,
        operator: &str,
        inputs: &[Value],
        attributes: &[(&str, Attribute)],
    ) -> (Value, Value) {
        self.operator("", operator, inputs, attributes).into()
    }

    /// What an operator of `ai.onnx.ml` makes of these values.
    pub fn ml_node(&mut self, operator: &str, inputs: &[Value], attributes: &[(&str, Attribute)]) -> Value {
        let [value] = self.operator(ML, operator, inputs, attributes);
        value
    }

    /// An input of shape `[N, 1]`. All inputs come before all else, and their names differ.
    pub(super) fn input(&mut self, name: &str, r#type: Type) -> Value {
        self.inputs.push(value_info(name, r#type, &[None, Some(1)]));
        self.taken.insert(name.into());
        self.names.push(name.into());
        Value(self.names.len() - 1)
    }

    /// Makes a value an output; an axis without a length is that of the rows. Gives the output's name: the one asked for,
    /// with underscores behind it if an input is named so.
    pub(super) fn output(
        &mut self,
        name: &str,
        value: Value,
        r#type: Type,
        shape: &[Option<usize>],
    ) -> String {
        let mut name = name.to_string();
        while !self.taken.insert(name.clone()) {
            name.push('_');
        }
        let node = Message::default().bytes(1, &self.names[value.0]).bytes(2, &name);
        self.nodes.push(node.bytes(3, format!("output_{}", self.outputs.len())).bytes(4, "Identity"));
        self.outputs.push(value_info(&name, r#type, shape));
        name
    }

    /// The file, with these facts beside the graph.
    pub(super) fn into_bytes(self, version: &str, facts: &[(&str, String)]) -> Vec<u8> {
        let mut graph = Message::default();
        graph = self.nodes.iter().fold(graph, |graph, node| graph.message(1, node)).bytes(2, "dml");
        for (field, parts) in [(5, &self.constants), (11, &self.inputs), (12, &self.outputs)] {
            graph = parts.iter().fold(graph, |graph, part| graph.message(field, part));
        }
        let model =
            Message::default().int(1, IR_VERSION).bytes(2, "dml").bytes(3, version).message(7, &graph);
        let model = OPSETS.iter().fold(model, |model, (domain, version)| {
            model.message(8, &Message::default().bytes(1, domain).int(2, *version))
        });
        let fact = |model: Message, (key, value): &(&str, String)| {
            model.message(14, &Message::default().bytes(1, key).bytes(2, value))
        };
        facts.iter().fold(model, fact).into_bytes()
    }

    fn constant(&mut self, shape: &[usize], tensor: Message) -> Value {
        let value = self.fresh();
        let tensor = tensor.ints(1, shape.iter().map(|length| *length as i64)).bytes(8, &self.names[value.0]);
        self.constants.push(tensor);
        value
    }

    fn operator<const OUTPUTS: usize>(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[Value],
        attributes: &[(&str, Attribute)],
    ) -> [Value; OUTPUTS] {
        let outputs: [Value; OUTPUTS] = std::array::from_fn(|_| self.fresh());
        let named = |field| move |node: Message, name: &String| node.bytes(field, name);
        let node = inputs.iter().map(|input| &self.names[input.0]).fold(Message::default(), named(1));
        let node = outputs.iter().map(|output| &self.names[output.0]).fold(node, named(2));
        let node = node.bytes(3, format!("{operator}_{}", self.nodes.len()));
        let node = attributes
            .iter()
            .fold(node.bytes(4, operator), |node, (name, value)| node.message(5, &attribute(name, value)));
        self.nodes.push(if domain.is_empty() { node } else { node.bytes(7, domain) });
        outputs
    }

    /// A value under a name that nothing else has.
    fn fresh(&mut self) -> Value {
        let mut name = format!("v{}", self.names.len());
        while !self.taken.insert(name.clone()) {
            name.push('_');
        }
        self.names.push(name);
        Value(self.names.len() - 1)
    }
}

fn doubles(values: &[f64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Message::default().int(2, Type::Double as i64).bytes(9, raw)
}

fn attribute(name: &str, value: &Attribute) -> Message {
    let message = Message::default().bytes(1, name);
    // The last field says which of the others is meant.
    match *value {
        Attribute::Int(value) => message.int(3, value).int(20, 2),
        Attribute::Text(text) => message.bytes(4, text).int(20, 3),
        Attribute::Ints(values) => message.ints(8, values.iter().copied()).int(20, 7),
        Attribute::Texts(texts) => {
            texts.iter().fold(message, |message, text| message.bytes(9, text)).int(20, 8)
        }
        Attribute::Doubles(values) => {
            message.message(5, &doubles(values).int(1, values.len() as i64)).int(20, 4)
        }
        Attribute::Bytes(values) => {
            let tensor = Message::default().int(2, Type::Byte as i64).bytes(9, values);
            message.message(5, &tensor.int(1, values.len() as i64)).int(20, 4)
        }
    }
}

/// The name, type and shape of an input or output. The axis of the rows is called `N`.
fn value_info(name: &str, r#type: Type, shape: &[Option<usize>]) -> Message {
    let shape = shape.iter().fold(Message::default(), |message, length| {
        let axis = Message::default();
        message.message(
            1,
            &match length {
                Some(length) => axis.int(1, *length as i64),
                None => axis.bytes(2, "N"),
            },
        )
    });
    let tensor = Message::default().int(1, r#type as i64).message(2, &shape);
    Message::default().bytes(1, name).message(2, &Message::default().message(1, &tensor))
}
