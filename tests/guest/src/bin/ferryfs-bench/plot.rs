//! The ratios as a picture: a bar for operations a second, a bar for CPU time, a mark for what must be reached.

use std::fmt::Write;

use crate::report::Report;
use crate::stats::{Cell, Spread};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 270.0;
const ROW: f64 = 34.0;
const TOP: f64 = 64.0;
/// The longest bar that is drawn; what is longer is cut, and its number says so.
const MOST: f64 = 12.0;

fn x(ratio: f64) -> f64 {
    LEFT + ratio.min(MOST) / MOST * (WIDTH - LEFT - 70.0)
}

/// Draws one queue at the depth given.
pub fn svg(report: &Report, depth: usize) -> String {
    let cells: Vec<&Cell> = report
        .cells
        .iter()
        .filter(|cell| cell.depth == depth && cell.queues == 1 && cell.faster(1).is_some())
        .collect();
    let height = TOP + ROW * cells.len() as f64 + 20.0;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    );
    let title = format!("ferryfs against virtiofsd with its defaults, {depth} requests under way, one queue");
    let _ = writeln!(out, "<text x=\"10\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{title}</text>");
    let legend = "blue: times the operations a second; green: times less CPU time each; red mark: to reach; line: 1";
    let _ = writeln!(out, "<text x=\"10\" y=\"40\" fill=\"#555\">{legend}</text>");
    let one = x(1.0);
    let _ = writeln!(out, "<line x1=\"{one}\" x2=\"{one}\" y1=\"{}\" y2=\"{height}\" stroke=\"#999\"/>", TOP - 8.0);
    for (index, cell) in cells.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        let name = format!("{}, {}", cell.workload.name, cell.place);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 10.0, y + 17.0);
        bar(&mut out, y, cell.faster(1), "#3b73b9");
        bar(&mut out, y + 13.0, cell.cheaper(1), "#4a9c59");
        if let Some((target, _)) = cell.workload.target {
            let at = x(target);
            let _ = writeln!(
                out,
                "<line x1=\"{at}\" x2=\"{at}\" y1=\"{}\" y2=\"{}\" stroke=\"#c22\" stroke-width=\"2\"/>",
                y - 2.0,
                y + 27.0
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, y: f64, spread: Option<Spread>, colour: &str) {
    let Some(Spread { low, median, high }) = spread.filter(|spread| spread.median.is_finite()) else { return };
    let (end, middle) = (x(median), y + 6.0);
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>\
         <text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{median:.1}</text>",
        end - LEFT,
        x(low),
        x(high),
        x(high).max(end) + 4.0,
        y + 10.0
    );
}
