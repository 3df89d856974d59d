//! What is told leads somewhere: every link of the README and of the book to a file of the project, and to a heading in it.

use std::{fs, path::Path};

/// The pages that people read.
fn pages() -> Vec<String> {
    let named = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "clients/python/README.md"];
    let book = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path().display().to_string());
    named.map(String::from).into_iter().chain(book.filter(|path| path.ends_with(".md"))).collect()
}

/// The targets of links in Markdown.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// A heading as a link names it: small letters and digits, hyphens for spaces, all else left out.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => Path::new(&page).to_path_buf(),
                file => Path::new(&page).parent().unwrap().join(file),
            };
            assert!(target.exists(), "{page}: there is no {link}");
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(
                    headings.any(|anchor| anchor == heading),
                    "{page}: {file} has no heading for #{heading}"
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} links");
}
