// Modules of the Amplifier kernel, made of JavaScript functions. For authors of modules: the kernel never imports it.

export { Cancelled, ModuleError } from './lib/errors.js'
export { Module } from './lib/module.js'
