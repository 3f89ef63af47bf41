import { Command } from 'commander';
import { generateKey } from '../domain/fernet.js';
import { say } from './print.js';

/** `agentllm key generate`: a key for ENCRYPTION_KEY. */
export function keyCommand(): Command {
  const command = new Command('key').description('make keys for ENCRYPTION_KEY');
  command
    .command('generate')
    .description('print a new key; keep it where the service finds it and nobody else')
    .action(() => say.out(generateKey()));
  return command;
}
