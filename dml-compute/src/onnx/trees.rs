//! The graph of an [`Ensemble`]: one `TreeEnsemble` node in double precision.
//!
//! Its leaves say one number each. Trees whose leaves say several, as those of a classifying forest, therefore say the
//! number of the leaf, and a table has what the leaf says.

use super::graph::{
    Attribute::{Bytes, Doubles, Int, Ints},
    Graph, Type, Value,
};
use crate::learners::trees::{Ensemble, Tree, ensemble::Link, tree::Node};

/// Values up to the threshold go to the side called true.
const AT_MOST: u8 = 0;
/// The answers of the trees are added up.
const SUM: i64 = 1;

impl Graph {
    /// What trees say of the encoded matrix `x`: `[N, 1]` numbers, or `[N, K]` probabilities. None if some trees say one
    /// number and others several.
    pub fn ensemble(&mut self, model: &Ensemble, x: Value) -> Option<Value> {
        let outputs = model.base().len();
        let sums = if model.trees().iter().all(|tree| tree.outputs() == 1) {
            self.single(model, x)
        } else if model.trees().iter().all(|tree| tree.outputs() == outputs) {
            self.several(model, x)
        } else {
            return None;
        };
        let base = self.doubles(&[1, outputs], model.base());
        let sums = self.node("Add", &[sums, base], &[]);
        Some(match model.link() {
            Link::Identity => sums,
            Link::Mean | Link::Shares => {
                let count = self.doubles(&[1], &[model.trees().len().max(1) as f64]);
                self.node("Div", &[sums, count], &[])
            }
            Link::Logistic => self.logistic(sums),
            Link::Softmax => self.softmax(sums),
        })
    }

    /// The sums of trees that serve the outputs in turn.
    fn single(&mut self, model: &Ensemble, x: Value) -> Value {
        let outputs = model.base().len();
        let mut table = Table::default();
        for (i, tree) in model.trees().iter().enumerate() {
            table.add(tree, i % outputs, |at| tree.values()[at]);
        }
        if model.trees().is_empty() {
            table.add_leaf(0, 0.0);
        }
        table.node(self, x, outputs)
    }

    /// The sums of trees that each know all outputs.
    fn several(&mut self, model: &Ensemble, x: Value) -> Value {
        let outputs = model.base().len();
        let (mut table, mut said) = (Table::default(), Vec::new());
        for (i, tree) in model.trees().iter().enumerate() {
            table.add(tree, i, |at| {
                said.extend(&tree.values()[at..][..outputs]);
                (said.len() / outputs - 1) as f64
            });
        }
        let leaves = table.node(self, x, model.trees().len());
        let leaves = self.node("Cast", &[leaves], &[("to", Int(Type::Integer as i64))]);
        let said = self.doubles(&[said.len() / outputs, outputs], &said);
        let answers = self.node("Gather", &[said, leaves], &[("axis", Int(0))]);
        self.sum(answers, 1)
    }
}

/// The columns of a `TreeEnsemble`: questions of all trees, and leaves of all trees.
#[derive(Default)]
struct Table {
    roots: Vec<i64>,
    features: Vec<i64>,
    thresholds: Vec<f64>,
    missing_left: Vec<i64>,
    /// Where a question leads, and whether that is a leaf.
    left: (Vec<i64>, Vec<i64>),
    right: (Vec<i64>, Vec<i64>),
    targets: Vec<i64>,
    weights: Vec<f64>,
}

impl Table {
    /// A tree whose leaves add to a target; `weigh` says what, given where the leaf's values start.
    fn add(&mut self, tree: &Tree, target: usize, mut weigh: impl FnMut(usize) -> f64) {
        if let [Node::Leaf { at }] = *tree.nodes() {
            return self.add_leaf(target, weigh(at as usize));
        }
        self.roots.push(self.features.len() as i64);
        let is_leaf = |node: &usize| matches!(tree.nodes()[*node], Node::Leaf { .. });
        let (mut leaves, questions): (Vec<usize>, Vec<usize>) = (0..tree.nodes().len()).partition(is_leaf);
        let mut places = self.places(&questions, &leaves);
        // onnxruntime 1.21 to 1.23 take a root for a leaf if its sides have the same number, one among the questions and
        // one among the leaves. In the other order that leaf, first or last of several, has another number.
        let sides = |places: &[(i64, i64)]| match tree.nodes()[0] {
            Node::Split { right, .. } => places[1].0 == places[right as usize].0,
            Node::Leaf { .. } => false,
        };
        if sides(&places) {
            leaves.reverse();
            places = self.places(&questions, &leaves);
        }
        for (i, node) in tree.nodes().iter().enumerate() {
            if let Node::Split { feature, threshold, missing_left, right } = *node {
                self.ask(i64::from(feature), threshold, missing_left, places[i + 1], places[right as usize]);
            }
        }
        for leaf in leaves {
            if let Node::Leaf { at } = tree.nodes()[leaf] {
                self.targets.push(target as i64);
                self.weights.push(weigh(at as usize));
            }
        }
    }

    /// The place of each node of a tree, questions and leaves in this order, and whether it is among the leaves.
    fn places(&self, questions: &[usize], leaves: &[usize]) -> Vec<(i64, i64)> {
        let mut places = vec![(0, 0); questions.len() + leaves.len()];
        for (nodes, first, leaf) in [(questions, self.features.len(), 0), (leaves, self.targets.len(), 1)] {
            nodes.iter().zip(first as i64..).for_each(|(node, place)| places[*node] = (place, leaf));
        }
        places
    }

    /// A tree of one leaf: a question whose sides are the same.
    fn add_leaf(&mut self, target: usize, weight: f64) {
        let leaf = (self.targets.len() as i64, 1);
        self.roots.push(self.features.len() as i64);
        self.ask(0, 0.0, false, leaf, leaf);
        self.targets.push(target as i64);
        self.weights.push(weight);
    }

    fn ask(&mut self, feature: i64, threshold: f64, missing_left: bool, left: (i64, i64), right: (i64, i64)) {
        self.features.push(feature);
        self.thresholds.push(threshold);
        self.missing_left.push(i64::from(missing_left));
        for (side, (place, leaf)) in [(&mut self.left, left), (&mut self.right, right)] {
            side.0.push(place);
            side.1.push(leaf);
        }
    }

    /// The sums of the targets: `[N, targets]`.
    fn node(&self, graph: &mut Graph, x: Value, targets: usize) -> Value {
        let attributes = [
            ("aggregate_function", Int(SUM)),
            ("leaf_targetids", Ints(&self.targets)),
            ("leaf_weights", Doubles(&self.weights)),
            ("n_targets", Int(targets as i64)),
            ("nodes_falseleafs", Ints(&self.right.1)),
            ("nodes_falsenodeids", Ints(&self.right.0)),
            ("nodes_featureids", Ints(&self.features)),
            ("nodes_missing_value_tracks_true", Ints(&self.missing_left)),
            ("nodes_modes", Bytes(&vec![AT_MOST; self.features.len()])),
            ("nodes_splits", Doubles(&self.thresholds)),
            ("nodes_trueleafs", Ints(&self.left.1)),
            ("nodes_truenodeids", Ints(&self.left.0)),
            ("post_transform", Int(0)),
            ("tree_roots", Ints(&self.roots)),
        ];
        graph.ml_node("TreeEnsemble", &[x], &attributes)
    }
}
