import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { Command } from 'commander';
import { writeFileAtomically } from '../../atomic_file.js';
import { certificateIdentities } from '../../domain/certificate.js';
import { printError } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { say } from '../kit/print.js';
import type { Pair } from './certificate_authority.js';

/** What is asked of `agentllm cert dev`. */
interface Wish {
  readonly out: string;
  readonly host: readonly string[];
  readonly client: readonly string[];
  readonly days: string;
}

const HERE = ['localhost', '127.0.0.1', '::1'];
const MOST_DAYS = 825;
const AUTHORITY_DAYS = 825;
/** X.520; verifiers that hold to it refuse longer ones. */
const COMMON_NAME = 64;

const again = (value: string, before: readonly string[]) => [...before, value];

/** `agentllm cert dev`: certificates to try TLS with. */
export function certCommand(): Command {
  const command = new Command('cert').description('make certificates to try TLS with');
  command
    .command('dev')
    .description('make an authority of your own, a certificate for the service, and some for clients')
    .option('--out <directory>', 'where they go; an authority that is there signs again', 'certs')
    .option(
      '--host <name>',
      'name or address of the service beside those of this machine; may be given again',
      again,
      [],
    )
    .option(
      '--client <identity>',
      'a client too: a URI such as spiffe://desk/trader, or a common name; may be given again',
      again,
      [],
    )
    .option('--days <number>', `how long they are good, 1 to ${MOST_DAYS}`, '30')
    .addHelpText('after', EXAMPLES)
    .action(run);
  return command;
}

const EXAMPLES = `
Run it again to renew the certificates, with the keys that are there, or to add a client.

Examples:
  $ agentllm cert dev
  $ agentllm cert dev --host agentllm.test --client spiffe://desk/trader`;

async function run(wish: Wish): Promise<void> {
  try {
    await makeAll(wish);
  } catch (error) {
    process.exitCode = printError(error, { json: false, command: 'agentllm cert dev', inputs: [], causes: [] });
  }
}

async function makeAll({ out, host, client, days }: Wish): Promise<void> {
  const lifetime = daysOf(days);
  const clients = client.map((identity) => ({ identity, ...clientOf(out, identity) }));
  for (const name of host) checkHost(name);
  const { makeLeaf } = await import('./certificate_authority.js');
  makeDirectory(out);
  const authority = await authorityIn(out);
  const server = join(out, 'server');
  const names = [
    ...new Set([...HERE, ...hostsOf(server), ...host.map((name) => (isIP(name) === 6 ? shortened(name) : name))]),
  ];
  const general = names.map((value) => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value }));
  const make = async (base: string, about: string, wish: Omit<Parameters<typeof makeLeaf>[1], 'days' | 'key'>) => {
    const key = readIf(`${base}.key`);
    await write(base, about, await makeLeaf(authority, { ...wish, days: lifetime, key }), key !== undefined);
  };
  await make(server, names.join(', '), { kind: 'server', names: general });
  for (const { base, identity, ...wish } of clients)
    await make(base, identityOf(identity), { kind: 'client', ...wish });
  say.out(instructions(out, clients[0]));
}

function makeDirectory(out: string): void {
  try {
    mkdirSync(out, { recursive: true, mode: 0o700 });
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? String(error);
    throw UsageError.of([{ typed: `--out ${out}`, description: `cannot be made as a directory (${why})` }]);
  }
}

/** The authority of a directory: the one that is there, or a new one. */
async function authorityIn(out: string): Promise<Pair> {
  const { makeAuthority } = await import('./certificate_authority.js');
  const base = join(out, 'ca');
  const [cert, key] = [readIf(`${base}.pem`), readIf(`${base}.key`)];
  if (cert === undefined && key === undefined) {
    const made = await makeAuthority(AUTHORITY_DAYS);
    await write(base, 'the authority', made, false);
    return made;
  }
  if (cert === undefined || key === undefined)
    throw new UsageError(
      `${base}.pem and ${base}.key belong together, and one of them is missing: choose another --out`,
    );
  if (new Date(certificateIn(base, cert).validTo) < new Date())
    throw new UsageError(`${base}.pem has expired: remove it and ${base}.key, and all that it has signed`);
  return { cert, key };
}

function daysOf(text: string): number {
  const days = Number(text);
  if (/^\d+$/.test(text) && days >= 1 && days <= MOST_DAYS) return days;
  throw UsageError.of([{ typed: `--days ${text}`, description: `must be a whole number from 1 to ${MOST_DAYS}` }]);
}

function checkHost(name: string): void {
  if (isIP(name) || certificateIdentities({ subjectaltname: `DNS:${name}` }).length === 1) return;
  throw UsageError.of([{ typed: `--host ${name}`, description: 'must be a name or an IP address, without a port' }]);
}

const isUri = (identity: string) => /^[a-z][a-z0-9+.-]*:/i.test(identity);
/** As the service names it. */
const identityOf = (identity: string) => (isUri(identity) ? identity : `CN=${identity}`);

/** What is made for a client, if the service can know it by that. */
function clientOf(out: string, identity: string) {
  const problem = (description: string) => UsageError.of([{ typed: `--client ${identity}`, description }]);
  const names = isUri(identity) ? { subjectaltname: `URI:${identity}` } : { subject: { CN: identity } };
  if (certificateIdentities(names)[0] !== identityOf(identity) || (!isUri(identity) && identity.length > COMMON_NAME))
    throw problem(`must be a URI, or a common name of at most ${COMMON_NAME} letters, without spaces`);
  const base = join(out, `client-${identity.replace(/[^\w.-]+/g, '-')}`);
  const there = readIf(`${base}.pem`);
  if (there !== undefined && identityIn(certificateIn(base, there)) !== identityOf(identity))
    throw problem(`would take the place of ${base}.pem, which is for another: choose another --out`);
  return isUri(identity)
    ? { base, names: [{ type: 'url' as const, value: identity }] }
    : { base, names: [], commonName: identity };
}

const identityIn = ({ subject, subjectAltName }: X509Certificate) =>
  certificateIdentities({ subjectaltname: subjectAltName ?? '', subject: { CN: /^CN=(.*)$/m.exec(subject)?.[1] } })[0];

/** The names of the certificate that is there already. */
function hostsOf(base: string): string[] {
  const pem = readIf(`${base}.pem`);
  const names = pem === undefined ? '' : (certificateIn(base, pem).subjectAltName ?? '');
  const found = [...names.matchAll(/(?:^|, )(?:DNS|IP Address):([\w.:-]+)(?=,|$)/g)].map(([, name]) => name as string);
  return found.map((name) => (isIP(name) === 6 ? shortened(name) : name));
}

/** `::1` for `0:0:0:0:0:0:0:1`. */
const shortened = (address: string) => new URL(`http://[${address}]`).hostname.slice(1, -1);

function certificateIn(base: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch {
    throw new UsageError(`${base}.pem is no certificate: choose another --out`);
  }
}

const readIf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);

/** A key is written once and never again. A certificate takes the place of the one before in one step. */
async function write(base: string, about: string, { cert, key }: Pair, hasKey: boolean): Promise<void> {
  if (!hasKey) await writeFileAtomically(`${base}.key`, Buffer.from(key), { mode: 0o600, overwrite: false });
  await writeFileAtomically(`${base}.pem`, Buffer.from(cert), { mode: 0o644 });
  const until = new Date(new X509Certificate(cert).validTo).toISOString().slice(0, 10);
  say.out(`${hasKey ? 'renewed' : 'made'} ${base}.pem until ${until}: ${about}`);
}

function instructions(out: string, made: { readonly base: string; readonly identity: string } | undefined): string {
  const client = made?.base;
  const ca = join(out, 'ca.pem');
  const server = join(out, 'server');
  const mutual = client === undefined ? '' : ` TLS_CLIENT_CA_FILE=${ca}`;
  const own = client === undefined ? '' : ` AGENTLLM_CERT=${client}.pem AGENTLLM_KEY=${client}.key`;
  const pair = client === undefined ? '' : ` -cert ${client}.pem -key ${client}.key`;
  return [
    '',
    `For trying it out: whoever has ${join(out, 'ca.key')} can be any service and any client.`,
    '',
    'The service:',
    `  export TLS_CERT_FILE=${server}.pem TLS_KEY_FILE=${server}.key${mutual}`,
    '  agentllm serve',
    'Whoever calls it:',
    `  export AGENTLLM_CA=${ca}${own}`,
    '  agentllm agents list',
    `  grpcurl -cacert ${ca}${pair} 127.0.0.1:50051 list`,
    `  curl --cacert ${ca}${pair.replace(' -cert', ' --cert').replace(' -key', ' --key')} https://127.0.0.1:8081/v1/agents`,
    ...(made
      ? [`  agentllm token create --role viewer --certificate ${identityOf(made.identity)}   lets that client read`]
      : []),
  ].join('\n');
}
