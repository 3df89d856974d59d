//! What is said of things in the browser beside [`crate::words`], and the small pictures among words.

use dml_core::{Digest, training::State};
use maud::{Markup, html};

pub(super) use crate::words::{ago, count, counted, metric, number, size, span};

/// `12 %`.
pub(super) fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// What something is called, else the beginning of its id.
pub(super) fn name(name: Option<&str>, id: &Digest) -> String {
    name.map_or_else(|| id.short(), Into::into)
}

/// An id, shortened; the whole one shows when pointed at.
pub(super) fn id(id: &Digest) -> Markup {
    html! { code title=(id) { (id.short()) } }
}

/// A state as a word that one can tell from others without colours.
pub(super) fn state(state: State) -> Markup {
    let (word, class) = match state {
        State::Queued => ("waits", "idle"),
        State::Running => ("running", "busy"),
        State::Succeeded => ("done", "good"),
        State::Failed => ("failed", "bad"),
        State::Cancelled => ("cancelled", "idle"),
    };
    badge(word, class)
}

/// A word in a pill: `good`, `bad`, `busy` or `idle`.
pub(super) fn badge(word: &str, class: &str) -> Markup {
    html! { span class={ "badge " (class) } { (word) } }
}

/// How far something is, from 0 to 1.
pub(super) fn progress(part: f64) -> Markup {
    html! { progress max="1" value=(format!("{part:.3}")) { (percent(part)) } " " span.quiet { (percent(part)) } }
}

/// Bars side by side, as high as their numbers.
pub(super) fn bars(heights: &[f64], label: &str) -> Markup {
    let greatest = heights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let step = 120.0 / heights.len().max(1) as f64;
    html! {
        svg.bars viewBox="0 0 120 28" width="120" height="28" role="img" aria-label=(label) {
            @for (i, height) in heights.iter().enumerate() {
                @let high = height / greatest * 27.0 + if *height > 0.0 { 1.0 } else { 0.0 };
                rect x=(format!("{:.1}", i as f64 * step)) y=(format!("{:.1}", 28.0 - high))
                    width=(format!("{:.1}", (step - 1.0).max(0.5))) height=(format!("{high:.1}")) {}
            }
        }
    }
}

/// A bar that lies, as long as a part of 1.
pub(super) fn bar(part: f64) -> Markup {
    let wide = format!("{:.1}", part.clamp(0.0, 1.0) * 200.0);
    html! { svg.bars viewBox="0 0 200 12" width="200" height="12" aria-hidden="true" { rect width=(wide) height="12" {} } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays_text() {
        let shown = badge("<script>alert(1)</script>", "good").into_string();
        assert!(!shown.contains("<script>"), "{shown}");
    }
}
