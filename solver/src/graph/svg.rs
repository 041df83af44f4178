//! The graph as a picture: SVG that any browser shows, laid out here.
//!
//! A row for each step of distance from the sources, downwards; a step stands below its first input where that place
//! is free, and else to the right of it, so that the steps of a stage form a column. Edges lie behind the boxes.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::print::{colour, word};
use super::{Graph, Usage, VertexId};
use crate::explain::kind;
use crate::schedule::StepReport;

/// Pixels.
const WIDTH: usize = 280;
const HEIGHT: usize = 44;
const COLUMN: usize = WIDTH + 30;
const ROW: usize = HEIGHT + 36;
const MARGIN: usize = 20;
/// Characters of a name that fit into a box; all of it is in the box's title.
const FITTING: usize = 42;
/// Characters of a title.
const LONGEST: usize = 2000;

/// The graph as an SVG document: a box a step, with its state and time where `reports` has them, and a line from each
/// input to its user, dashed where only some files are used.
pub fn svg(graph: &Graph, reports: &[StepReport]) -> String {
    let known: HashMap<VertexId, &StepReport> =
        reports.iter().map(|report| (report.vertex, report)).collect();
    let places = places(graph);
    let columns = places.iter().map(|(_, column)| column + 1).max().unwrap_or(0);
    let rows = places.iter().map(|(row, _)| row + 1).max().unwrap_or(0);
    let (width, height) = (2 * MARGIN + columns * COLUMN, 2 * MARGIN + rows * ROW);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<g fill=\"none\" stroke=\"grey\">\n"
    );
    for (id, vertex) in graph.vertices() {
        let (x, y) = corner(places[id.0 as usize]);
        for input in &vertex.inputs {
            let (from_x, from_y) = corner(places[input.vertex.0 as usize]);
            let (from_x, from_y, x) = (from_x + WIDTH / 2, from_y + HEIGHT, x + WIDTH / 2);
            let middle = (from_y + y) / 2;
            // past the boxes between, where there are some in this column: a curve goes three quarters of the way
            let bend = if from_x == x && y > from_y + ROW { WIDTH * 4 / 5 } else { 0 };
            let (from_bend, bend) = (from_x + bend, x + bend);
            let dashes = match input.usage {
                Usage::Root => "",
                Usage::Files(_) => " stroke-dasharray=\"4\"",
            };
            let _ = writeln!(
                out,
                "<path d=\"M{from_x} {from_y}C{from_bend} {middle} {bend} {middle} {x} {y}\"{dashes}/>"
            );
        }
    }
    out.push_str("</g>\n");
    for (id, vertex) in graph.vertices() {
        let (x, y) = corner(places[id.0 as usize]);
        let name = if vertex.info.name.is_empty() { kind(&vertex.op) } else { &vertex.info.name };
        let report = known.get(&id);
        let mut state = String::new();
        if let Some(report) = report {
            state.push_str(word(report.state));
            if !report.duration.is_zero() {
                let _ = write!(state, ", {:.3} s", report.duration.as_secs_f64());
            }
        }
        let fill = report.map_or("white", |report| colour(report.state));
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" \
             fill=\"{fill}\" stroke=\"black\"/><text x=\"{text_x}\" y=\"{}\">{}</text>\
             <text x=\"{text_x}\" y=\"{}\">{state}</text></g>",
            escape(name, LONGEST),
            y + 18,
            escape(name, FITTING),
            y + 36,
            text_x = x + 8,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// The row and the column of each step.
fn places(graph: &Graph) -> Vec<(usize, usize)> {
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(graph.len());
    // the first column of each row that is free to the end
    let mut free: Vec<usize> = Vec::new();
    for (_, vertex) in graph.vertices() {
        let inputs = || vertex.inputs.iter().map(|input| places[input.vertex.0 as usize]);
        let row = inputs().map(|(row, _)| row + 1).max().unwrap_or(0);
        if free.len() <= row {
            free.resize(row + 1, 0);
        }
        let column = inputs().next().map_or(0, |(_, column)| column).max(free[row]);
        free[row] = column + 1;
        places.push((row, column));
    }
    places
}

fn corner((row, column): (usize, usize)) -> (usize, usize) {
    (MARGIN + column * COLUMN, MARGIN + row * ROW)
}

/// Text of XML: markup escaped, nothing that XML can't hold, at most so many characters.
fn escape(text: &str, longest: usize) -> String {
    let mut out = String::with_capacity(text.len().min(longest));
    for (number, c) in text.chars().enumerate() {
        match c {
            _ if number == longest => {
                out.push('…');
                break;
            }
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::graph::{Input, StepInfo};
    use crate::op::{Op, Selection};
    use crate::schedule::StepState;

    fn input(vertex: VertexId) -> Input {
        Input { vertex, usage: Usage::Root }
    }

    fn info(name: &str) -> StepInfo {
        StepInfo { name: name.into(), ..StepInfo::default() }
    }

    #[test]
    fn steps_of_a_stage_form_a_column_and_text_is_no_markup() {
        let mut graph = Graph::new();
        let base = graph.add(Op::Merge, vec![], info("FROM base"));
        let one = graph.add(Op::Merge, vec![input(base)], info("RUN a <b> && \x1b[2J"));
        let files = Input { vertex: one, usage: Usage::Files(Selection::default()) };
        let two = graph.add(Op::Merge, vec![input(base), files], info(&"x".repeat(60)));
        let other = graph.add(Op::Diff, vec![input(base)], info(""));
        assert_eq!(places(&graph), [(0, 0), (1, 0), (2, 0), (1, 1)]);
        let report = StepReport {
            vertex: one,
            name: String::new(),
            state: StepState::Failed,
            started: None,
            duration: Duration::from_millis(1500),
            waited: Duration::ZERO,
            key: None,
            reasons: Vec::new(),
        };
        let picture = svg(&graph, &[report]);
        assert!(picture.contains("RUN a &lt;b&gt; &amp;&amp;  [2J"), "{picture}");
        assert!(picture.contains("fill=\"salmon\"") && picture.contains("failed, 1.500 s"), "{picture}");
        assert!(picture.contains(&format!(">{}…<", "x".repeat(FITTING))), "{picture}");
        assert!(picture.contains(">diff<"), "{picture}");
        assert_eq!(picture.matches("<path").count(), 4, "{picture}");
        assert_eq!(picture.matches("stroke-dasharray").count(), 1, "{picture}");
        assert_eq!((two.0, other.0), (2, 3));
        // from the base past `one`, between the columns
        assert!(picture.contains("M160 64C384 122 384 122 160 180"), "{picture}");
    }

    #[test]
    fn nothing_is_a_picture_too() {
        insta::assert_snapshot!(svg(&Graph::new(), &[]), @r#"
        <svg xmlns="http://www.w3.org/2000/svg" width="40" height="40" font-family="sans-serif" font-size="12">
        <g fill="none" stroke="grey">
        </g>
        </svg>
        "#);
    }
}
