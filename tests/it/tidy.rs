//! The rules of the source itself: imports run downwards, files are short and say what they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the top down: each may import those after it, and itself. Modules of one line
/// know nothing of each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["config", "shutdown"],
    &["server"],
    &["command"],
    &["tier"],
    &["ram", "dry", "tracking", "upstream"],
    &["metrics", "watch"],
    &["auth", "clients", "ratelimit", "tls"],
    &["entry"],
    &["siphash"],
    &["words"],
    &[
        "clock", "escape", "host", "lock", "memory", "socket", "sync", "units",
    ],
    &["fault"],
];

/// The habit is 100 to 400 lines; a longer file surely has more than one job. The tests at its end do
/// not count.
const LINES_MAX: usize = 600;

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![
        root.join("src"),
        root.join("protocol/src"),
        root.join("tests"),
    ];
    let mut sources = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    sources
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level module that a file of `src` belongs to.
fn module(path: &Path) -> Option<String> {
    let first = path.strip_prefix("src").ok()?.components().next()?;
    Some(
        Path::new(first.as_os_str())
            .file_stem()?
            .to_str()?
            .to_owned(),
    )
}

/// The top-level modules that a line of code names.
fn imports(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let name = |rest: &str| {
        rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .next()
            .map(str::len)
    };
    let paths = code
        .split("crate::")
        .skip(1)
        .chain(code.split("tiercache::").skip(1));
    paths
        .filter_map(|rest| Some(&rest[..name(rest)?]))
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn imports_run_downwards() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(from) = module(&path).filter(|from| from != "lib") else {
            continue;
        };
        let Some(above) = layer(&from) else {
            wrong.push(format!("{} has no place among the layers", path.display()));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for to in imports(line) {
                match layer(to) {
                    Some(below) if below > above || to == from => {}
                    _ => wrong.push(format!(
                        "{}:{}: {from} imports {to}",
                        path.display(),
                        number + 1
                    )),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!(
                "{}: the first line does not say what the file is for",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// Unsafe code has one home.
#[test]
fn unsafe_code_has_one_home() {
    for (path, text) in sources() {
        let allowed = path == Path::new("src/memory.rs");
        let uses = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn")
        });
        assert!(
            allowed || !uses || path.ends_with("tidy.rs"),
            "{}",
            path.display()
        );
    }
}
