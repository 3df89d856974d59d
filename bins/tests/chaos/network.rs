//! Machines on a network of their own: a network namespace each, all on one bridge, which is in a namespace too so that
//! the firewall of whoever runs the tests has no say. The test itself is one more host on it. What is cut or lost is
//! dropped by the receiver's firewall, packet by packet, as a broken cable would: nobody is told.

use std::{
    net::Ipv4Addr,
    process::{Command, Output, Stdio},
};

/// A network with machines 0 to n - 1; gone when dropped.
pub(crate) struct Network {
    name: String,
    subnet: u8,
    machines: usize,
}

/// The last byte of the test's own address.
const TEST: u8 = 254;

impl Network {
    /// Builds one, or says why that cannot be done here.
    pub(crate) fn new(machines: usize) -> Result<Self, String> {
        sweep();
        let taken = run("ip", &["-4", "-o", "address"])?;
        let process = std::process::id();
        let free = (0..250u32).map(|n| ((process + n) % 250) as u8);
        let mut free = free.filter(|n| !taken.contains(&format!("10.77.{n}.")));
        let subnet = free.next().ok_or("all networks 10.77.x.0 are taken")?;
        let network = Self { name: format!("dml-{process}"), subnet, machines };
        network.build().map(|()| network)
    }

    fn build(&self) -> Result<(), String> {
        let (switch, plug) = (self.switch(), self.plug());
        run("ip", &["netns", "add", &switch])?;
        inside(&switch, "ip", &["link", "add", "bridge", "type", "bridge"])?;
        inside(&switch, "ip", &["link", "set", "bridge", "up"])?;
        run("ip", &["link", "add", &plug, "type", "veth", "peer", "name", "test", "netns", &switch])?;
        let prefix = |address: Ipv4Addr| format!("{address}/24");
        run("ip", &["address", "add", &prefix(self.address_of(TEST)), "dev", &plug])?;
        run("ip", &["link", "set", &plug, "up"])?;
        self.connect("test")?;
        for machine in 0..self.machines {
            let (name, port) = (self.machine(machine), format!("port{machine}"));
            run("ip", &["netns", "add", &name])?;
            let cable = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name];
            inside(&switch, "ip", &cable)?;
            self.connect(&port)?;
            let address = prefix(self.address(machine));
            inside(&name, "ip", &["address", "add", &address, "dev", "eth0"])?;
            for device in ["lo", "eth0"] {
                inside(&name, "ip", &["link", "set", device, "up"])?;
            }
            // The first rule shows whether there is a firewall to cut with.
            inside(&name, "iptables", &["-w", "-F", "INPUT"])?;
        }
        Ok(())
    }

    fn connect(&self, port: &str) -> Result<(), String> {
        inside(&self.switch(), "ip", &["link", "set", port, "master", "bridge", "up"]).map(|_| ())
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn machine(&self, machine: usize) -> String {
        format!("{}-{machine}", self.name)
    }

    /// The test's own end; the system allows 15 letters.
    fn plug(&self) -> String {
        self.name.replace('-', "")
    }

    fn address_of(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, host)
    }

    /// Where a machine is.
    pub(crate) fn address(&self, machine: usize) -> Ipv4Addr {
        self.address_of(machine as u8 + 1)
    }

    /// A command on a machine. Its process is the program itself, so signals reach it.
    pub(crate) fn command(&self, machine: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machine(machine), program]);
        command
    }

    /// Nothing gets from the first machines to the others any more.
    pub(crate) fn cut_one_way(&self, from: &[usize], to: &[usize]) {
        let sources: Vec<String> = from.iter().map(|machine| self.address(*machine).to_string()).collect();
        for machine in to {
            self.firewall(*machine, &["-s", &sources.join(","), "-j", "DROP"]);
        }
    }

    /// Nothing gets from either side to the other any more.
    pub(crate) fn cut(&self, one: &[usize], other: &[usize]) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// So many per cent of all packets between the machines are lost; those of the test arrive.
    pub(crate) fn lose(&self, percent: u8) {
        let (test, probability) = (self.address_of(TEST).to_string(), format!("0.{percent:02}"));
        let dice = ["-m", "statistic", "--mode", "random", "--probability", &probability, "-j", "DROP"];
        for machine in 0..self.machines {
            self.firewall(machine, &[&["-i", "eth0", "!", "-s", &test], &dice[..]].concat());
        }
    }

    fn firewall(&self, machine: usize, rule: &[&str]) {
        let rule = [&["-w", "-A", "INPUT"], rule].concat();
        inside(&self.machine(machine), "iptables", &rule).expect("the same firewall has worked before");
    }

    /// Everything gets everywhere again.
    pub(crate) fn heal(&self) {
        for machine in 0..self.machines {
            let flush = inside(&self.machine(machine), "iptables", &["-w", "-F", "INPUT"]);
            flush.expect("the same firewall has worked before");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the network of a process with its last cables. Whatever is gone already needs no removal.
fn remove(name: &str) {
    for namespace in namespaces().iter().filter(|one| one.rsplit_once('-').is_some_and(|(n, _)| n == name)) {
        let processes = run("ip", &["netns", "pids", namespace]).unwrap_or_default();
        for process in processes.lines() {
            let _ = run("kill", &["-9", process]);
        }
        let _ = run("ip", &["netns", "delete", namespace]);
    }
    let _ = run("ip", &["link", "delete", &name.replace('-', "")]);
}

/// Removes what tests left that were killed themselves: their processes are no more.
fn sweep() {
    for namespace in namespaces() {
        let Some(rest) = namespace.strip_prefix("dml-") else { continue };
        let Some((process, _)) = rest.split_once('-') else { continue };
        if process.parse::<u32>().is_ok() && !std::path::Path::new("/proc").join(process).exists() {
            remove(&format!("dml-{process}"));
        }
    }
}

fn namespaces() -> Vec<String> {
    let listed = run("ip", &["netns", "list"]).unwrap_or_default();
    listed.lines().filter_map(|line| line.split_whitespace().next().map(Into::into)).collect()
}

fn inside(namespace: &str, program: &str, arguments: &[&str]) -> Result<String, String> {
    run("ip", &[&["netns", "exec", namespace, program], arguments].concat())
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let told = |why: String| format!("`{program} {}`: {}", arguments.join(" "), why.trim());
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.map_err(|error| told(error.to_string()))?;
    if !status.success() {
        return Err(told(String::from_utf8_lossy(&stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
