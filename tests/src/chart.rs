//! Chart: a line chart of two series over a logarithmic axis, as a picture in plain SVG.

use std::fmt::Write as _;

/// A series of figures, one for each place on the axis.
#[derive(Debug, Clone)]
pub struct ChartSeries {
    /// What it shows, with its unit.
    pub title: String,
    /// Its figures.
    pub values: Vec<f64>,
}

/// One series against an axis on the left, one against an axis on the right.
#[derive(Debug, Clone)]
pub struct LineChart {
    /// Above the picture.
    pub title: String,
    /// Below the axis.
    pub axis: String,
    /// The places on the axis, ascending and above 0; they are spread by their logarithms.
    pub places: Vec<f64>,
    /// Against the left axis.
    pub left: ChartSeries,
    /// Against the right axis.
    pub right: ChartSeries,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Around the plot: left and right, above, below.
const SIDE: f64 = 70.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
/// Lines across the plot.
const STEPS: u32 = 4;
const LEFT_COLOUR: &str = "#1668b8";
const RIGHT_COLOUR: &str = "#c2571a";

impl LineChart {
    /// The picture.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let middle = WIDTH / 2.0;
        text(&mut svg, (middle, 22.0), "middle", "#222", &self.title);
        text(&mut svg, (middle, HEIGHT - 10.0), "middle", "#222", &self.axis);
        let (left, right) = (top_of(&self.left.values), top_of(&self.right.values));
        for step in 0..=STEPS {
            let share = f64::from(step) / f64::from(STEPS);
            let y = y_of(share);
            line(&mut svg, &[(SIDE, y), (WIDTH - SIDE, y)], "#ddd");
            let label = |top: f64| format!("{:.0}", top * share);
            text(&mut svg, (SIDE - 6.0, y + 4.0), "end", LEFT_COLOUR, &label(left));
            text(&mut svg, (WIDTH - SIDE + 6.0, y + 4.0), "start", RIGHT_COLOUR, &label(right));
        }
        for place in &self.places {
            let x = self.x_of(*place);
            line(&mut svg, &[(x, y_of(0.0)), (x, y_of(1.0))], "#eee");
            text(&mut svg, (x, HEIGHT - BOTTOM + 18.0), "middle", "#222", &format!("{place}"));
        }
        text(&mut svg, (SIDE, TOP - 12.0), "start", LEFT_COLOUR, &self.left.title);
        text(&mut svg, (WIDTH - SIDE, TOP - 12.0), "end", RIGHT_COLOUR, &self.right.title);
        for (series, top, colour) in
            [(&self.left, left, LEFT_COLOUR), (&self.right, right, RIGHT_COLOUR)]
        {
            let points = self.places.iter().zip(&series.values);
            let points: Vec<_> =
                points.map(|(place, value)| (self.x_of(*place), y_of(value / top))).collect();
            line(&mut svg, &points, colour);
            for (x, y) in points {
                put(
                    &mut svg,
                    format_args!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"
                    ),
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn x_of(&self, place: f64) -> f64 {
        let (first, last) = (self.places.first(), self.places.last());
        let (first, last) = (first.map_or(0.0, |it| it.ln()), last.map_or(0.0, |it| it.ln()));
        let share = if last > first { (place.ln() - first) / (last - first) } else { 0.5 };
        SIDE + share * (WIDTH - 2.0 * SIDE)
    }
}

fn y_of(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

/// The end of an axis: a round number that no figure exceeds.
fn top_of(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * unit).find(|top| *top >= most).unwrap_or(most)
}

fn put(svg: &mut String, arguments: std::fmt::Arguments<'_>) {
    svg.write_fmt(arguments).expect("a String takes all");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, colour: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    put(
        svg,
        format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>\n"
        ),
    );
}

fn line(svg: &mut String, points: &[(f64, f64)], colour: &str) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let points = points.join(" ");
    put(svg, format_args!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"/>\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> ChartSeries {
        ChartSeries { title: "a < b".to_owned(), values: values.to_vec() }
    }

    #[test]
    fn each_doubling_is_one_step_of_the_axis() {
        let chart = LineChart {
            title: "t".to_owned(),
            axis: "clients".to_owned(),
            places: vec![1.0, 2.0, 4.0],
            left: series(&[1.0, 2.0, 4.0]),
            right: series(&[4.0, 2.0, 1.0]),
        };
        let at = [1.0, 2.0, 4.0].map(|place| chart.x_of(place).round());
        assert_eq!(at, [SIDE, WIDTH / 2.0, WIDTH - SIDE]);
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 6);
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn an_axis_ends_at_a_round_number_above_all_figures() {
        let tops = [0.0, 7.0, 10.0, 1234.0].map(|most| top_of(&[0.0, most]));
        assert_eq!(tops, [1.0, 8.0, 10.0, 2000.0]);
    }
}
