mod bootstrap;
mod cli;
mod interop;
mod lab;
mod reference;
