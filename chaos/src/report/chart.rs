//! Chart: acknowledged writes over time with the faults below, as one SVG without other files.

use std::fmt::Write as _;

use crate::run::RunResult;

/// The width of the image. All sizes are in units of its view box.
const WIDTH: f64 = 1200.0;
/// The height of the part with the writes.
const CHART: f64 = 240.0;
/// The width of the labels at the left.
const LEFT: f64 = 130.0;
/// The height of the row of one kind of fault.
const ROW: f64 = 14.0;

/// The chart as SVG.
pub(super) fn svg(result: &RunResult) -> String {
    let seconds = result.acknowledged_per_second.len().max(1) as f64;
    let most = result.acknowledged_per_second.iter().copied().max().unwrap_or(1).max(1) as f64;
    let x = |second: f64| LEFT + second / seconds * (WIDTH - LEFT - 10.0);
    let mut kinds: Vec<&str> = result.faults.iter().map(|fault| fault.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let height = CHART + 40.0 + kinds.len() as f64 * ROW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"20\">writes a second</text>\n\
         <text x=\"8\" y=\"36\" fill=\"#666\">most: {most}</text>\n"
    );
    let mut path = format!("M {LEFT} {CHART}");
    for (second, acknowledged) in result.acknowledged_per_second.iter().enumerate() {
        let y = CHART - *acknowledged as f64 / most * (CHART - 20.0);
        let _ = write!(path, " L {:.1} {y:.1}", x(second as f64 + 0.5));
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path} L {:.1} {CHART} Z\" fill=\"#b7d3ee\" stroke=\"#2b6cb0\"/>",
        x(seconds)
    );
    for minute in 0..=(seconds / 60.0) as u64 {
        let at = x(minute as f64 * 60.0);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" fill=\"#666\">{minute} min</text>",
            CHART + 14.0
        );
    }
    for (row, kind) in kinds.iter().enumerate() {
        let y = CHART + 24.0 + row as f64 * ROW;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{:.1}\">{kind}</text>", y + 10.0);
        for fault in result.faults.iter().filter(|fault| fault.kind == *kind) {
            let from = x(fault.from.0 as f64 / 1e6);
            let until = x(fault.until.0 as f64 / 1e6);
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"#c53030\"><title>{}</title></rect>",
                // A short fault must still be visible.
                (until - from).max(2.0),
                ROW - 4.0,
                fault.description.replace('&', "&amp;").replace('<', "&lt;")
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
