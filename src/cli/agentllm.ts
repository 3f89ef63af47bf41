#!/usr/bin/env node
import { Command } from 'commander';
import { version } from '../package.js';
import { fail } from './fail.js';
import { migrateCommand } from './migrate.js';
import { seedCommand } from './seed.js';
import { serveCommand } from './serve.js';

const program = new Command('agentllm')
  .description('The control plane for per-agent LLM configuration')
  .version(version)
  .showHelpAfterError('(agentllm --help shows what there is)')
  .addCommand(serveCommand())
  .addCommand(migrateCommand())
  .addCommand(seedCommand());

await program.parseAsync().catch(fail);
