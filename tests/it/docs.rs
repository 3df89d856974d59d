//! What is told leads somewhere: every link of the README and of the book to a file of the project, and to a heading in it.

use std::{collections::BTreeSet, fs, path::Path};

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

/// The sources below a folder, without their tests.
fn sources(folder: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            all.push(text.split("#[cfg(test)]").next().unwrap().into());
        }
    }
}

/// The words by which programs tell problems apart, as a source names them: the first text in what makes a problem, and
/// the arms of the methods `code`.
fn codes(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| {
        let word: String = rest.split('"').nth(1)?.into();
        let plain = |c: char| c.is_ascii_lowercase() || "-8".contains(c);
        (!word.is_empty() && word.chars().all(plain)).then_some(word)
    };
    let mut found = BTreeSet::new();
    for maker in ["Problem::new(", "Self::new(Status", "bad_request(", "unprocessable(", "conflict("] {
        let made = text.split(maker).skip(1);
        found.extend(made.filter_map(|rest| word(rest.split([';', '{', ')']).next()?)));
    }
    let arms = text.split("fn code(&self)").skip(1).filter_map(|rest| rest.split("\n    }").next());
    found.extend(arms.flat_map(|arms| arms.split("=>").skip(1)).filter_map(word));
    found
}

/// Every code that a program may meet is told of, and none that it cannot meet.
#[test]
fn the_catalogue_of_problems_is_complete() {
    let mut all = Vec::new();
    sources(Path::new("dml-net/src"), &mut all);
    sources(Path::new("dml-compute/src"), &mut all);
    let mut found: BTreeSet<String> = all.iter().flat_map(|text| codes(text)).collect();
    // A fault of the file system is told as disk-full or internal; a kind is taken in a program, not over the network; the
    // client says that an answer had no words.
    for own in ["io", "kind-taken", "no-words"] {
        assert!(found.remove(own), "{own}");
    }
    let page = fs::read_to_string("docs/api.md").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let told: BTreeSet<String> = rows
        .filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
        .map(|(code, _)| code.into())
        .collect();
    assert!(told.len() > 80, "{told:?}");
    let missing: Vec<_> = found.difference(&told).collect();
    let named = |code: &String| all.iter().any(|text| text.contains(&format!("\"{code}\"")));
    let stale: Vec<_> = told.iter().filter(|code| !named(code)).collect();
    assert!(missing.is_empty() && stale.is_empty(), "not in docs/api.md: {missing:?}; only there: {stale:?}");
}
