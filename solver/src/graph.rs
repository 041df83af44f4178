//! The graph: vertices with an op, inputs and what people see of them. Acyclic by construction: an input must
//! already be in the graph.

mod print;
mod svg;

use std::collections::HashMap;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::op::{Op, Selection};
use crate::platform::Platform;

pub use print::{dot, json};
pub use svg::svg;

/// A vertex of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct VertexId(pub u32);

/// A step: an op, what it works on, and what people see of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// What it is done with, in the order in which the op numbers them.
    pub inputs: Vec<Input>,
    /// What people see.
    pub info: StepInfo,
}

/// An input of a step, and what of it the step uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    /// Whose output.
    pub vertex: VertexId,
    /// What of it decides the result.
    pub usage: Usage,
}

/// What a step uses of an input: what goes into its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Usage {
    /// Everything: a root filesystem.
    Root,
    /// The selected files only: COPY sources, bind mounts.
    Files(Selection),
}

/// What people see of a step. Never in a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepInfo {
    /// `[build 2/5] RUN make`.
    pub name: String,
    /// The stage it belongs to, by name or number; empty for steps that belong to none.
    pub stage: String,
    /// The instruction as written, on one line: how the same step is found again in earlier builds.
    pub instruction: String,
    /// Where it stands.
    pub location: Option<Location>,
    /// What it is for.
    pub platform: Option<Platform>,
    /// Which names in the op's environment come from ARG or `--build-arg`: what explanations call a build-arg.
    pub build_args: Vec<String>,
    /// `--no-cache`: run it even if there is a record.
    pub no_cache: bool,
}

/// Lines of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Location {
    /// The file's name, as the caller gave it.
    pub file: String,
    /// First line, counted from 1.
    pub first: u32,
    /// Last line, included.
    pub last: u32,
}

/// A build graph.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    dag: DiGraph<Vertex, ()>,
    known: HashMap<(Op, Vec<Input>, bool), VertexId>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step. One with the same op and inputs that is already there is returned instead.
    ///
    /// # Panics
    ///
    /// If an input is not in the graph: that is a defect of the frontend, whatever the Dockerfile says.
    pub fn add(&mut self, op: Op, inputs: Vec<Input>, info: StepInfo) -> VertexId {
        let identity = (op.clone(), inputs.clone(), info.no_cache);
        if let Some(id) = self.known.get(&identity) {
            return *id;
        }
        let node = self.dag.add_node(Vertex { op, inputs: inputs.clone(), info });
        for input in &inputs {
            let from = NodeIndex::new(input.vertex.0 as usize);
            assert!(from.index() < node.index(), "input {:?} is not in the graph", input.vertex);
            self.dag.add_edge(from, node, ());
        }
        let id = VertexId(node.index() as u32);
        self.known.insert(identity, id);
        id
    }

    /// A step.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.dag[NodeIndex::new(id.0 as usize)]
    }

    /// All steps, inputs before those that use them.
    pub fn vertices(&self) -> impl Iterator<Item = (VertexId, &Vertex)> {
        self.dag.node_indices().map(|node| (VertexId(node.index() as u32), &self.dag[node]))
    }

    /// What `target` needs: itself and everything above it, inputs first.
    pub fn needed(&self, target: VertexId) -> Vec<VertexId> {
        self.reach(target, |_, _| true)
    }

    /// The steps whose layers are in the output of `target`: itself and what it stands on, inputs first. Their
    /// outputs can be packed as soon as they are there.
    pub fn foundation(&self, target: VertexId) -> Vec<VertexId> {
        self.reach(target, |op, input| match op {
            Op::Exec(exec) => exec.root == Some(input),
            Op::File(file) => file.base == Some(input),
            Op::Merge => true,
            Op::Source(_) | Op::Diff => false,
        })
    }

    /// `target` and what it reaches through those inputs that `follow` wants.
    fn reach(&self, target: VertexId, follow: impl Fn(&Op, usize) -> bool) -> Vec<VertexId> {
        let count = target.0 as usize + 1;
        if count > self.len() {
            return Vec::new();
        }
        let mut wanted = vec![false; count];
        wanted[count - 1] = true;
        // an input's number is smaller than that of its users: one pass downwards reaches everything
        for index in (0..count).rev() {
            if wanted[index] {
                let vertex = self.vertex(VertexId(index as u32));
                for (number, input) in vertex.inputs.iter().enumerate() {
                    wanted[input.vertex.0 as usize] |= follow(&vertex.op, number);
                }
            }
        }
        (0..count).filter(|i| wanted[*i]).map(|i| VertexId(i as u32)).collect()
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Is it empty?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The graph as petgraph has it.
    pub fn dag(&self) -> &DiGraph<Vertex, ()> {
        &self.dag
    }
}
