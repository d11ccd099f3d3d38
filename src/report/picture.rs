//! Drawings of graphs.

use crate::backend::isolate;
use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};

/// The picture of a graph in Graphviz's language, as SVG. `None` where the drawing library fails, which it does by
/// panicking.
pub fn draw(dot: &str) -> Option<String> {
    let draw = || {
        let parsed = DotParser::new(dot).process().ok()?;
        let mut builder = GraphBuilder::new();
        builder.visit_graph(&parsed);
        let mut writer = SVGWriter::new();
        builder.get().do_it(false, false, false, &mut writer);
        Some(writer.finalize())
    };
    isolate(|| Ok(draw())).ok().flatten()
}
