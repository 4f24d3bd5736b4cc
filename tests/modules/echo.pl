# An STDIO echo in Perl, with its core modules alone.
#
# perl echo.pl [NAME]

use strict;
use warnings;
use JSON::PP;

my $json = JSON::PP->new->utf8->allow_bignum;    # without it, integers of more than 64 bits come back as text
my %description = (
    name         => $ARGV[0] // 'echo',
    version      => '0.1.0',
    kind         => 'tool',
    capabilities => [],
    inputs       => { echo => {} },
    outputs      => { echo => {} },
);

sub answer {
    my ($request) = @_;
    return (ok => JSON::PP::true, result => { status => 'ok' }) if $request->{method} eq 'health';
    return (ok => JSON::PP::true, result => \%description) if $request->{method} eq 'describe';
    my $params = $request->{params};
    return (ok => JSON::PP::true, result => $params->{args}) if $params->{op} eq 'echo';
    return (
        ok    => JSON::PP::false,
        error => { code => 'unsupported_op', message => "echo does not know '$params->{op}'" },
    );
}

binmode $_ for *STDIN, *STDOUT;
$| = 1;
while (my $line = <STDIN>) {
    my $request = $json->decode($line);
    next if $request->{method} eq 'cancel';
    print $json->encode({ id => $request->{id}, answer($request) }), "\n";
}
