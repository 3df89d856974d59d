//! SVG by hand: a few shapes, classes instead of colours, numbers with one decimal.

use std::fmt::Write;

/// Colours by role, on light and on dark. Those of curves are of Okabe and Ito (2008), told apart by most who see colours
/// differently too.
const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:17px;font-weight:600}.head{font-size:13px;font-weight:600}.faint{fill:#59636e}
.page{fill:#ffffff}.frame,.grid,.guide,.curve,.trial{fill:none}.frame{stroke:#818b98}.grid{stroke:#e4e8ec}
.guide{stroke:#818b98;stroke-dasharray:4 4}.curve{stroke-width:2;stroke-linejoin:round}
.trial{stroke:#0072b2;stroke-opacity:.3}.dot{fill:#0072b2;fill-opacity:.45}.cell{fill:#0072b2}
.c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#009e73}.c3{stroke:#cc79a7}
.c4{stroke:#b58900}.c5{stroke:#56b4e9}.c6{stroke:#7d5ab5}.c7{stroke:#6e7781}
@media (prefers-color-scheme:dark){
text{fill:#f0f3f6}.faint{fill:#aab4bf}.page{fill:#11151a}.grid{stroke:#262c34}
.dot{fill:#56b4e9}.trial{stroke:#56b4e9}.c0{stroke:#4aa8e0}.c7{stroke:#9aa4ae}}
";

/// A picture that is being drawn.
pub(super) struct Svg {
    text: String,
}

/// Which point of a text stands at its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n",
            escaped(title)
        );
        Self { text }
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    pub(super) fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2]) {
        let ([x1, y1], [x2, y2]) = (from, to);
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    pub(super) fn path(&mut self, class: &str, points: impl Iterator<Item = [f64; 2]>) {
        let points: Vec<String> = points.map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        self.put(format_args!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" ")));
    }

    pub(super) fn dot(&mut self, [x, y]: [f64; 2]) {
        self.put(format_args!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>"));
    }

    /// A rectangle; `strength` is how much of its colour is seen, from 0 to 1.
    pub(super) fn rect(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2], strength: f64) {
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill-opacity=\"{strength:.2}\"/>"
        ));
    }

    pub(super) fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        ));
    }

    /// A text that reads upwards, in the middle of its place.
    pub(super) fn upwards(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.put(format_args!(
            "<text class=\"{class}\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            escaped(text)
        ));
    }

    fn put(&mut self, element: std::fmt::Arguments) {
        writeln!(self.text, "{element}").expect("a string takes everything");
    }
}

/// A text of at most so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// What XML has no meaning for; control characters, which it does not allow, as spaces.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
