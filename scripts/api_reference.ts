// Writes the API reference from the descriptor: the proto files are the manual, and this is how they read on a page.
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

/** A heading's anchor, as Markdown readers make it. */
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

function method(one: DescMethod): string[] {
  const permission = registry.getEnum(`${PACKAGE}.Permission`)?.value[option(one, `${PACKAGE}.permission`) as number];
  const unary = one.methodKind === 'unary';
  const routes = unary ? routesOf(option(one, 'google.api.http') as HttpRule).join(', ') : 'none; it is a stream';
  return [
    `### ${one.name}`,
    commentOf(one),
    `Permission: \`${permission?.name}\`  \nHTTP: ${routes}`,
    '**Request**',
    fields(one.input),
    '**Answer**',
    fields(one.output),
  ];
}

const fields = (message: DescMessage): string =>
  table(
    ['field', 'type', 'meaning'],
    message.fields.map((field) => [`\`${field.name}\``, typeOf(field), cell(commentOf(field))]),
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

const values = (one: DescEnum): string =>
  table(
    ['value', 'meaning'],
    one.values.map((value) => [`\`${value.name}\``, cell(commentOf(value))]),
  );

const shared = files
  .flatMap((file) => file.messages)
  .filter((message) => !methods.some(({ input, output }) => message === input || message === output));
const parts = [
  '# API reference',
  '<!-- Made by npm run generate from the comments in proto/agentllm/v1. Do not edit. -->',
  'Package `agentllm.v1`. A field that is *optional* tells absent from empty; every reason of an error stands in ' +
    `${link('ErrorReason')}.`,
  [
    ...services.map(({ name, methods }) => `- ${link(name)}: ${methods.map((one) => link(one.name)).join(', ')}`),
    `- ${link('Messages')}: ${shared.map(({ name }) => link(name)).join(', ')}`,
    `- ${link('Enums')}: ${files.flatMap(({ enums }) => enums.map(({ name }) => link(name))).join(', ')}`,
  ].join('\n'),
  ...services.flatMap((service) => [`## ${service.name}`, commentOf(service), ...service.methods.flatMap(method)]),
  '## Messages',
  ...shared.flatMap((message) => [`### ${message.name}`, commentOf(message), fields(message)]),
  '## Enums',
  ...files.flatMap(({ enums }) => enums.flatMap((one) => [`### ${one.name}`, commentOf(one), values(one)])),
];
writeFileSync(target, `${parts.filter(Boolean).join('\n\n')}\n`);
