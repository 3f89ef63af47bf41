import { providers } from '../providers.js';
import { COMMON_OPTIONS, ERROR_OPTIONS, type FaultOption, faultCatalogue } from './fault_catalogue.js';

/** A fault as it is listed. */
export interface FaultRow {
  readonly name: string;
  readonly group: string;
  readonly description: string;
  /** The providers that respond in this way; empty: all. */
  readonly providers: readonly string[];
  /** The class of the error; empty: the call succeeds, or the class depends on the options and on the call. */
  readonly class: string;
  /** The options that only this fault has, with their defaults: `after=40`. */
  readonly options: readonly string[];
}

/** The options of several faults: those of every fault, and those of every error response. */
export const SHARED_OPTIONS: readonly (readonly [title: string, options: Readonly<Record<string, FaultOption>>])[] = [
  ['Options of every fault', COMMON_OPTIONS],
  ['Options of error responses', ERROR_OPTIONS],
];

/** All faults, in the order of the documentation. */
export const faultRows = (): FaultRow[] =>
  faultCatalogue.map(({ name, group, errorClass = '', description, options, providers: some = [] }) => ({
    name,
    group,
    description:
      some.length > 0 ? `${description} (${some.map((one) => providers[one].title).join(', ')})` : description,
    providers: some,
    class: errorClass,
    options: Object.entries(options)
      .filter(([option]) => !Object.hasOwn(ERROR_OPTIONS, option))
      .map(([option, { default: preset }]) => (preset === undefined ? option : `${option}=${preset}`)),
  }));

/** The tables of docs/rehearsal.md: the faults, and the options of several faults. */
export function faultMarkdown(): string {
  const code = (text: string) => `\`${text}\``;
  const faults = faultRows().map(
    ({ name, description, class: errorClass, options }) =>
      `| ${code(name)} | ${description} | ${errorClass} | ${options.map(code).join(' ')} |`,
  );
  const shared = SHARED_OPTIONS.map(([title, options]) => {
    const items = Object.entries(options).map(([name, { description }]) => `- ${code(name)}: ${description}`);
    return `${title}:\n\n${items.join('\n')}`;
  });
  return [
    `| fault | what the provider does | class | options |\n|---|---|---|---|\n${faults.join('\n')}`,
    ...shared,
  ].join('\n\n');
}
