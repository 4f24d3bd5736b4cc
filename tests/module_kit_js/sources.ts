// The types that are declared are those of the sources: tsc.

import type * as declared from '../../amplifier_module_js/index.js'
import { Context } from '../../amplifier_module_js/lib/context.js'
import { Cancelled, ModuleError } from '../../amplifier_module_js/lib/errors.js'
import { Module } from '../../amplifier_module_js/lib/module.js'

export const exported: Pick<typeof declared, 'Cancelled' | 'Module' | 'ModuleError'> = { Cancelled, Module, ModuleError }
export const given = (context: Context): declared.Context => context
