import { Command } from 'commander';
import { readSettings, type Settings, settings } from '../config.js';
import { createLog } from '../log.js';
import { type Running, type ServeFlags, serve } from '../main.js';

/** `agentllm serve`: runs the service until it is told to stop. */
export function serveCommand(): Command {
  return new Command('serve')
    .description('run the service until it gets SIGINT or SIGTERM')
    .option('--allow-plaintext', 'listen without TLS on addresses that other machines can reach', false)
    .option('--allow-anonymous', 'let everybody in who can reach such an address', false)
    .addHelpText('after', `\nSettings come from the environment:\n${settingsHelp()}`)
    .action(runService);
}

function settingsHelp(): string {
  const rows = Object.entries(settings).map(([name, { unset, about }]) => [name, unset, about] as const);
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => (row[column] as string).length)));
  return rows
    .map(
      ([name, unset, about]) => `  ${name.padEnd(widths[0] as number)}  ${unset.padEnd(widths[1] as number)}  ${about}`,
    )
    .join('\n');
}

async function runService(flags: ServeFlags): Promise<void> {
  const config = readSettings(process.env);
  const log = createLog(config.LOG_LEVEL);
  const started = performance.now();
  process.stderr.write(banner('agentllm is starting', where(config)));
  const running = await serve(config, flags, log);
  process.stderr.write(
    banner(`agentllm is ready after ${((performance.now() - started) / 1000).toFixed(1)} s`, ready(config, running)),
  );
  await stopOnSignal(running);
}

const banner = (title: string, lines: readonly string[]) => `${title}\n${lines.map((line) => `  ${line}\n`).join('')}`;

function where({ DATABASE_URL, DATA_DIR }: Settings): string[] {
  if (DATABASE_URL) return [`database  PostgreSQL at ${new URL(DATABASE_URL).host}`];
  return [`database  embedded PostgreSQL in ${DATA_DIR} (the first start takes a few seconds)`];
}

function ready({ GRPC_ADDRESS, HTTP_ADDRESS }: Settings, { grpcPort, httpPort }: Running): string[] {
  const grpc = `${GRPC_ADDRESS.host}:${grpcPort}`;
  const lines = [`gRPC      ${grpc}        try: grpcurl -plaintext ${grpc} list`];
  if (HTTP_ADDRESS !== 'off') lines.push(`HTTP      ${HTTP_ADDRESS.host}:${httpPort}        /healthz /readyz /metrics`);
  lines.push('access    open to everybody on this machine', 'stop      Ctrl-C');
  return lines;
}

/**
 * Resolves when the service has stopped. npm passes on the Ctrl-C that the
 * terminal has sent to us already, so a second signal within a second is no
 * second wish; a later one ends the process at once.
 */
function stopOnSignal(running: Running): Promise<void> {
  return new Promise((resolve, reject) => {
    let first: number | undefined;
    const onSignal = (signal: NodeJS.Signals) => {
      if (first !== undefined) {
        if (performance.now() - first > 1000) process.exit(130);
        return;
      }
      first = performance.now();
      process.stderr.write(`agentllm is stopping (${signal})\n`);
      running.stop().then(() => {
        process.stderr.write('agentllm has stopped\n');
        process.removeListener('SIGINT', onSignal);
        process.removeListener('SIGTERM', onSignal);
        resolve();
      }, reject);
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  });
}
