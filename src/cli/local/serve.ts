import { Command } from 'commander';
import { readSettings, type Settings, settings } from '../../config.js';
import { displayAddress, parseDatabaseUrl } from '../../domain/database_url.js';
import { createLog, logOutput } from '../../log.js';
import { type Running, serve } from '../../main.js';
import type { AccessPolicy, ServeFlags } from '../../net/exposure.js';
import { visible } from '../kit/print.js';
import { stopRequest } from '../kit/signals.js';
import { handleAdminRequest } from './local_tasks.js';

/** `agentllm serve`: runs the service until a signal stops it. */
export function serveCommand(): Command {
  return new Command('serve')
    .description('run the service until it gets SIGINT, SIGTERM or SIGHUP')
    .option('--allow-plaintext', 'listen without TLS on addresses that other machines can reach', false)
    .option('--allow-anonymous', 'permit callers without a token, also on such addresses', false)
    .addHelpText('after', `\nSettings come from the environment:\n${settingsHelp()}`)
    .action(runService);
}

function settingsHelp(): string {
  const rows = Object.entries(settings).map(
    ([name, { defaultText, description }]) => [name, defaultText, description] as const,
  );
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => (row[column] as string).length)));
  return rows
    .map(
      ([name, defaultText, description]) =>
        `  ${name.padEnd(widths[0] as number)}  ${defaultText.padEnd(widths[1] as number)}  ${description}`,
    )
    .join('\n');
}

async function runService(flags: ServeFlags): Promise<void> {
  const config = readSettings(process.env);
  const output = logOutput();
  const log = createLog(config.LOG_LEVEL);
  const started = performance.now();
  output.write(banner('agentllm is starting', where(config)));
  const running = await serve(config, flags, log, handleAdminRequest);
  const took = ((performance.now() - started) / 1000).toFixed(1);
  output.write(banner(`agentllm is ready after ${took} s`, ready(config, running)));
  output.write(`agentllm is stopping (${await stopRequest()})\n`);
  await running.stop();
  output.write('agentllm has stopped\n');
  await output.drained();
  // Unread log lines would keep the process running.
  process.exit();
}

const banner = (title: string, lines: readonly string[]) =>
  `${[title, ...lines.map((line) => `  ${line}`)].join('\n')}\n`;

function where({ DATABASE_URL, DATA_DIR }: Settings): string[] {
  if (DATABASE_URL) return [`database  PostgreSQL at ${displayAddress(parseDatabaseUrl(DATABASE_URL))}`];
  return [`database  embedded PostgreSQL in ${DATA_DIR} (the first start takes a few seconds)`];
}

function ready(settings: Settings, { grpcPort, httpPort, keyProblem, access, shutDownModels }: Running): string[] {
  const { GRPC_ADDRESS, HTTP_ADDRESS, TLS_CERT_FILE } = settings;
  const grpc = `${GRPC_ADDRESS.host}:${grpcPort}`;
  const lines = [`gRPC      ${grpc}        try: grpcurl ${grpcurlOptions(settings)} ${grpc} list`];
  const scheme = TLS_CERT_FILE === undefined ? '' : 'https://';
  if (HTTP_ADDRESS !== 'off')
    lines.push(
      `HTTP      ${scheme}${HTTP_ADDRESS.host}:${httpPort}        /v1/… /openapi.json /metrics /healthz /readyz`,
    );
  lines.push(`API keys  ${keyProblem ? `cannot be stored: ${keyProblem}` : 'are stored encrypted'}`);
  lines.push(`access    ${ACCESS[access]}`, ...shutDownModels.map((notice) => `models    ${visible(notice)}`));
  lines.push('stop      Ctrl-C');
  return lines;
}

const ACCESS: Readonly<Record<AccessPolicy, string>> = {
  'this machine':
    'open to every caller on this machine, except key leases and access management; agentllm token create --role admin --local closes it',
  tokens: 'with tokens',
  anonymous: 'open to every caller (--allow-anonymous), with or without a token',
};

function grpcurlOptions({ TLS_CERT_FILE, TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT }: Settings): string {
  if (TLS_CERT_FILE === undefined) return '-plaintext';
  const mutual = TLS_CLIENT_CA_FILE !== undefined && TLS_CLIENT_CERT === 'required';
  return `-cacert ca.pem${mutual ? ' -cert client.pem -key client.key' : ''}`;
}
