import type { ChannelCredentials } from '@grpc/grpc-js';

interface Connector {
  connect(socket: unknown): Promise<{ readonly socket: { ref(): unknown; unref(): unknown } }>;
}

/**
 * Credentials whose connections keep no process alive, also while a call runs: grpc-js refers to the socket for as long
 * as there is one, and a stream that is never to end would hold every process back that does not close it. The socket
 * is reached where it is secured; a grpc-js that does that in another way keeps the process alive, and nothing else is
 * different.
 */
export function unref(credentials: ChannelCredentials): ChannelCredentials {
  const inner = credentials as unknown as { _createSecureConnector?: (...args: unknown[]) => Connector };
  const create = inner._createSecureConnector?.bind(credentials);
  if (create)
    inner._createSecureConnector = (...args) => {
      const connector = create(...args);
      const connect = connector.connect.bind(connector);
      connector.connect = async (tcp) => {
        const secured = await connect(tcp);
        const { socket } = secured;
        socket.unref();
        socket.ref = () => socket;
        return secured;
      };
      return connector;
    };
  return credentials;
}
