#!/usr/bin/env node
import { Command } from 'commander';
import { version } from '../package.js';
import { backupCommand } from './backup.js';
import { fail } from './fail.js';
import { keyCommand } from './key.js';
import { migrateCommand } from './migrate.js';
import { restoreCommand } from './restore.js';
import { seedCommand } from './seed.js';
import { serveCommand } from './serve.js';
import { storeCommand } from './store.js';

const program = new Command('agentllm')
  .description('The control plane for per-agent LLM configuration')
  .version(version)
  .showHelpAfterError('(agentllm --help shows what there is)')
  .addCommand(serveCommand())
  .addCommand(migrateCommand())
  .addCommand(seedCommand())
  .addCommand(backupCommand())
  .addCommand(restoreCommand())
  .addCommand(storeCommand())
  .addCommand(keyCommand());

await program.parseAsync().catch(fail);
