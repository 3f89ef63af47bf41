// Writes the API reference, docs/api.md, from the comments of the proto files.
// Usage: tsx scripts/api_reference.ts <descriptor> <file>
import { readFileSync, writeFileSync } from 'node:fs';
import {
  createFileRegistry,
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescMethod,
  fromBinary,
  getOption,
  type Message,
  ScalarType,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { commentOf } from '../src/http/comments.js';

const PACKAGE = 'agentllm.v1';
const [descriptor, target] = process.argv.slice(2) as [string, string];
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptor)));
const files = [...registry.files].filter((file) => file.proto.package === PACKAGE);
const services = files.flatMap((file) => file.services);
const methods = services.flatMap((service) => service.methods);

/** A link to a heading of the page. */
const link = (name: string) => `[${name}](#${name.toLowerCase()})`;
const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n\n', '<br>');
const table = (heads: readonly string[], rows: readonly (readonly string[])[]) =>
  [heads, heads.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

interface HttpRule extends Message {
  readonly pattern: { readonly case?: string; readonly value?: unknown };
  readonly additionalBindings: readonly HttpRule[];
}

function option(method: DescMethod, name: string): unknown {
  const extension = registry.getExtension(name);
  return extension && getOption(method, extension);
}

const routesOf = ({ pattern, additionalBindings }: HttpRule): string[] => [
  `\`${pattern.case?.toUpperCase()} ${pattern.value}\``,
  ...additionalBindings.flatMap(routesOf),
];

function method(rpc: DescMethod): string[] {
  const permission = registry.getEnum(`${PACKAGE}.Permission`)?.value[option(rpc, `${PACKAGE}.permission`) as number];
  const unary = rpc.methodKind === 'unary';
  const routes = unary ? routesOf(option(rpc, 'google.api.http') as HttpRule).join(', ') : 'none (stream)';
  return [
    `### ${rpc.name}`,
    commentOf(rpc),
    `Permission: \`${permission?.name}\`  \nHTTP: ${routes}`,
    ...fieldsOfPart('Request', rpc.input),
    ...fieldsOfPart('Response', rpc.output),
  ];
}

/** Fields that are documented once, in the order of the page. */
const SHARED_FIELDS = {
  Request: [
    'min_revision',
    'page_size',
    'page_token',
    'update_mask',
    'etag',
    'request_id',
    'validate_only',
    'reason',
    'wait_for_adoption',
  ],
  Response: ['revision', 'next_page_token', 'adoption'],
};
/** The number of messages in which a comment must occur. A field with a comment of its own stays in its table. */
const SHARED_BY = 5;

type Part = keyof typeof SHARED_FIELDS;
const MESSAGES: Readonly<Record<Part, readonly DescMessage[]>> = {
  Request: methods.map(({ input }) => input),
  Response: methods.map(({ output }) => output),
};

function isShared(part: Part, field: DescField): boolean {
  if (!SHARED_FIELDS[part].includes(field.name)) return false;
  const comment = commentOf(field);
  const same = MESSAGES[part].filter(({ fields }) =>
    fields.some((other) => other.name === field.name && commentOf(other) === comment),
  );
  return same.length >= SHARED_BY;
}

/** One field for each shared comment. `revision` has two: one of reads and one of writes. */
function sharedFields(part: Part): DescField[] {
  const all = MESSAGES[part].flatMap(({ fields }) => fields).filter((field) => isShared(part, field));
  const first = [...new Map(all.reverse().map((field) => [commentOf(field), field])).values()];
  const position = ({ name }: DescField) => SHARED_FIELDS[part].indexOf(name);
  return first.reverse().sort((a, b) => position(a) - position(b));
}

function fieldsOfPart(part: Part, { fields }: DescMessage): string[] {
  const [own, shared] = [false, true].map((wanted) => fields.filter((field) => isShared(part, field) === wanted));
  return [
    `**${part}**`,
    fields.length === 0 ? 'No fields.' : '',
    own?.length ? tableOf(own) : '',
    shared?.length ? `[Shared fields](#shared-fields): ${shared.map(({ name }) => `\`${name}\``).join(', ')}` : '',
  ];
}

const tableOf = (fields: readonly DescField[]): string =>
  table(
    ['field', 'type', 'meaning'],
    fields.map((field) => [`\`${field.name}\``, typeOf(field), cell(commentOf(field))]),
  );

function typeOf(field: DescField): string {
  const named = field.message ?? field.enum;
  const name = !named ? (ScalarType[field.scalar ?? 0]?.toLowerCase() ?? '') : linked(named);
  const list = field.fieldKind === 'list' && 'repeated';
  const presence = field.proto.proto3Optional ? 'optional' : field.oneof && 'one of';
  return [list, presence, name].filter(Boolean).join(' ');
}

const linked = ({ name, typeName }: DescMessage | DescEnum) =>
  typeName === `${PACKAGE}.${name}` ? link(name) : typeName;

const values = (desc: DescEnum): string =>
  table(
    ['value', 'meaning'],
    desc.values.map((value) => [`\`${value.name}\``, cell(commentOf(value))]),
  );

const otherMessages = files
  .flatMap((file) => file.messages)
  .filter((message) => ![...MESSAGES.Request, ...MESSAGES.Response].includes(message));
const parts = [
  '# API reference',
  '<!-- Generated by npm run generate from the comments in proto/agentllm/v1. Do not edit. -->',
  'Package `agentllm.v1`. An *optional* field distinguishes absent from empty. Errors are written as status code ' +
    `(reason); ${link('ErrorReason')} lists every reason with an example. [Shared fields](#shared-fields) describes the ` +
    'fields that many methods have.',
  [
    '- [Shared fields](#shared-fields)',
    ...services.map(({ name, methods }) => `- ${link(name)}: ${methods.map((rpc) => link(rpc.name)).join(', ')}`),
    `- ${link('Messages')}: ${otherMessages.map(({ name }) => link(name)).join(', ')}`,
    `- ${link('Enums')}: ${files.flatMap(({ enums }) => enums.map(({ name }) => link(name))).join(', ')}`,
  ].join('\n'),
  '## Shared fields',
  'These fields have the same meaning in every method that links here. `revision` has one meaning in reads and one in writes.',
  '**Request**',
  tableOf(sharedFields('Request')),
  '**Response**',
  tableOf(sharedFields('Response')),
  ...services.flatMap((service) => [`## ${service.name}`, commentOf(service), ...service.methods.flatMap(method)]),
  '## Messages',
  ...otherMessages.flatMap((message) => [`### ${message.name}`, commentOf(message), tableOf(message.fields)]),
  '## Enums',
  ...files.flatMap(({ enums }) => enums.flatMap((desc) => [`### ${desc.name}`, commentOf(desc), values(desc)])),
];
writeFileSync(target, `${parts.filter(Boolean).join('\n\n')}\n`);
