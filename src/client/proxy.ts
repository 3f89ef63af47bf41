/** Variables that name a proxy, in the order in which grpc-js reads them. */
const VARIABLES = ['grpc_proxy', 'https_proxy', 'http_proxy'] as const;

/** Why a connection through a proxy failed, which grpc-js does not report. Only the host of the variable is shown. */
export function proxyProblem(where: string): string {
  const name = VARIABLES.find((one) => process.env[one]);
  const text = name === undefined ? '' : (process.env[name] as string);
  if (name === undefined) return `no connection to ${where} is possible`;
  const proxy = URL.canParse(text) ? new URL(text).host : 'named there';
  return `the proxy ${proxy} of ${name} does not connect to ${where}; unset ${name}, or add the host to no_proxy`;
}
